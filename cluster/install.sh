#!/usr/bin/env bash
# Run by `ray up` on every machine, any number of times: the pinned environment in ~/tune_rnn/env and, on the head, the
# cluster's token. `install.sh stamp` says what an environment that is up to date was made from.
set -euo pipefail
role="$1"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
stamp="$(find constraints.txt pyproject.toml tune_rnn -type f -not -name '*.pyc' | LC_ALL=C sort | xargs sha256sum | sha256sum)"

if [[ "$role" == stamp ]]; then
  echo "$stamp"
  exit
fi

if [[ "$(cat ~/tune_rnn/installed 2>/dev/null)" != "$stamp" ]]; then
  ~/tune_rnn/env/bin/python -m pip --version &> /dev/null || python3 -m venv --clear ~/tune_rnn/env
  ~/tune_rnn/env/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --force-reinstall --no-deps .
  ~/tune_rnn/env/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt '.[cluster]'
  echo "$stamp" > ~/tune_rnn/installed
fi

if [[ "$role" == head && ! -s ~/.ray/auth_token ]]; then
  (umask 077 && mkdir -p ~/.ray && python3 -c 'import secrets; print(secrets.token_hex(32), end="")' > ~/.ray/auth_token)
fi

# `ray down` and `ray exec` look for these where login shells do.
mkdir -p ~/.local/bin
for name in ray tune-rnn; do
  [[ -e ~/.local/bin/$name ]] || ln -s ~/tune_rnn/env/bin/$name ~/.local/bin/$name
done
