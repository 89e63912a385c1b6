#!/usr/bin/env bash
# One study in one Slurm allocation, a new one or one to go on with:
#   sbatch cluster/slurm.sh study.yaml [key=value …]
#   sbatch cluster/slurm.sh results/study [budget.trials=N]
#SBATCH --job-name=tune-rnn
#SBATCH --ntasks-per-node=1
#SBATCH --nodes=2                 # yours, and so is what follows
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=1
#SBATCH --time=04:00:00
#SBATCH --signal=B:TERM@180
set -euo pipefail
[[ -d "${1:?give an experiment file, or a run}" ]] && what=resume || what=run
source "${TUNE_RNN_ENV:-$HOME/tune_rnn/env}/bin/activate"
export RAY_AUTH_MODE=token SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"
export RAY_max_direct_call_object_size=100000000 RAY_task_rpc_inlined_bytes_limit=100000000 # see README.md

# In the home directory, which all nodes see. The token is in a file there, and in no argument.
private="$(mktemp -d "$HOME/.tune-rnn-$SLURM_JOB_ID-XXXXXX")"
temporary="/tmp/ray-$SLURM_JOB_ID"
step=(srun --overlap --export=ALL)
study=""
end() {
  local status=$?
  trap - EXIT
  trap '' TERM INT
  [[ -z "$study" ]] || { kill "$study" && wait "$study"; } || true # it writes down where it is
  kill $(jobs -p) 2> /dev/null || true
  wait || true
  "${step[@]}" --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" rm -rf "$temporary" || true
  rm -rf "$private"
  exit "$status"
}
trap end EXIT
trap 'exit 143' TERM INT

start() { # start NODES WHICH [ARGUMENT …]: Ray on some nodes, with as many open files as they allow
  "${step[@]}" --nodes="$1" --ntasks="$1" "$2" bash -c 'ulimit -n $(ulimit -Hn) && RAY_AUTH_MODE=token exec ray start "$@"' start \
    "${@:3}" --block --temp-dir="$temporary" --num-cpus="$SLURM_CPUS_PER_TASK" --disable-usage-stats &
}

(umask 077 && od -An -v -N32 -tx1 /dev/urandom | tr -d ' \n' > "$private/token")
export RAY_AUTH_TOKEN_PATH="$private/token"

nodes=($(scontrol show hostnames "$SLURM_JOB_NODELIST"))
head="${nodes[0]}" # this script runs there
ip="$("${step[@]}" --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address)"
ip="${ip%% *}"
address="$ip:$((20000 + SLURM_JOB_ID % 10000))"

start 1 --nodelist="$head" \
  --head --node-ip-address="$ip" --port="${address##*:}" --include-dashboard=false --dashboard-host=127.0.0.1
leader=$!
until ray health-check --address "$address" &> /dev/null; do
  kill -0 "$leader" 2> /dev/null && ((SECONDS < 300)) || { echo "Ray does not start on $head" >&2 && exit 1; }
  sleep 1
done
if ((SLURM_JOB_NUM_NODES > 1)); then
  start $((SLURM_JOB_NUM_NODES - 1)) --exclude="$head" --address="$address"
fi
timeout 300 python -c '
import sys, time, ray
ray.init(address=sys.argv[1], logging_level="ERROR")
while sum(node["Alive"] for node in ray.nodes()) < int(sys.argv[2]):
    time.sleep(1)
' "$address" "$SLURM_JOB_NUM_NODES" || { echo "not all nodes have joined within five minutes" >&2 && exit 1; }

tune-rnn "$what" "$@" --address "$address" &
study=$!
wait "$study" && status=0 || status=$?
study=""
exit "$status"
