"""The command line: `tune-rnn run FILE` and its siblings.

`--help` imports nothing of the project's weight: each command imports what it needs when it runs.
Exit status: 0 done, 1 the study failed, 2 the input is wrong, 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from typing import Any, NoReturn

from tune_rnn import __version__
from tune_rnn.errors import InputError, TuneRnnError

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    options = _parse(build_parser(), arguments)
    try:
        options.command(options)
    except TuneRnnError as error:
        print(f"tune-rnn: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("tune-rnn: interrupted", file=sys.stderr)
        return INTERRUPTED
    return 0


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with a command, as all input that is wrong is answered."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def _parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse; overrides may also stand after options, where argparse does not look for them."""
    options, rest = parser.parse_known_args(arguments)
    strange = [text for text in rest if text.startswith("-") or "=" not in text]
    if strange or (rest and "overrides" not in options):
        parser.error(f"unrecognized arguments: {' '.join(strange or rest)}")
    if rest:
        options.overrides = [*options.overrides, *rest]
    return options


def build_parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    parser = Parser(
        prog="tune-rnn",
        description="Finds a well-regularised recurrent network for your sequence data.",
        epilog="Exit status: 0 done, 1 the study failed, 2 the input is wrong, 130 interrupted (resume goes on).",
    )
    parser.add_argument("--version", action="version", version=f"tune-rnn {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="search: run the study that FILE describes")
    _add_file(run)
    _add_address(run)
    run.set_defaults(command=_run)

    resume = commands.add_parser("resume", help="go on with an interrupted study, or with a larger budget")
    resume.add_argument("run", metavar="RUN", help="run directory")
    _add_overrides(resume, "budget.trials=N, budget.hours=H, final.top_k=K or final.seeds=N")
    _add_address(resume)
    resume.set_defaults(command=_resume)

    train = commands.add_parser("train", help="train one model in this process, without Ray")
    _add_file(train, optional=True)
    train.add_argument("--from", dest="source", metavar="RUN[:TRIAL]", help="train a run's best, or named, trial again")
    train.add_argument("--seed", type=_seed, help="the trial's seed (default: the trial's own, or the study's first)")
    train.set_defaults(command=_train)

    check = commands.add_parser("check", help="say what would run, and how long, without running it")
    _add_file(check)
    check.set_defaults(command=_check)

    ablate = commands.add_parser("ablate", help="what each regulariser of a run's best configuration is worth")
    ablate.add_argument("run", metavar="RUN", help="run directory, or that of an ablation")
    ablate.add_argument("--seeds", type=_count, help="seeds for each (default: 3)")
    ablate.add_argument("--retune", type=_count, metavar="N", help="learning rates to try for each")
    _add_overrides(ablate, "overrides, e.g. budget.epochs=2")
    _add_address(ablate)
    ablate.set_defaults(command=_ablate)
    _add_simulate(commands)
    _add_model_commands(commands)
    _add_cluster_commands(commands)
    return parser


def _add_simulate(commands: Any) -> None:
    simulate = commands.add_parser("simulate", help="play search and scheduler against learning curves, no training")
    simulate.add_argument("--search", nargs="+", default=["hyperopt"], metavar="NAME", help="default: hyperopt")
    simulate.add_argument("--scheduler", nargs="+", default=["asha"], metavar="NAME", help="default: asha")
    simulate.add_argument("--blackbox", default="noisy", metavar="NAME", help="noisy, crossing, or a TaskSet table")
    simulate.add_argument("--workers", type=_count, default=8, metavar="N", help="trials at a time (default: 8)")
    simulate.add_argument("--budget", type=_number, default=40, metavar="N", help="whole trainings (default: 40)")
    simulate.add_argument("--seeds", type=_count, default=5, metavar="N", help="studies of each pair (default: 5)")
    simulate.set_defaults(command=_simulate)


def _add_model_commands(commands: Any) -> None:
    """The commands that use a trained model."""
    evaluate = commands.add_parser("evaluate", help="loss of a run's best model on a split")
    evaluate.add_argument("run", metavar="RUN", help="run directory")
    evaluate.add_argument("--split", choices=("train", "validation", "test"), default="validation")
    evaluate.add_argument("--json", action="store_true", help="print JSON")
    evaluate.set_defaults(command=_evaluate)

    sample = commands.add_parser("sample", help="text from a run's best model")
    sample.add_argument("run", metavar="RUN", help="run directory, or a model directory (best/)")
    sample.add_argument("--prompt", default="", help="text to go on from")
    sample.add_argument("--length", type=int, default=500, help="characters or words (default: 500)")
    sample.add_argument(
        "--temperature", type=float, default=0.8, help="0: the likeliest; higher: bolder (default: 0.8)"
    )
    sample.add_argument("--seed", type=_seed, default=0, help="of the draws (default: 0)")
    sample.set_defaults(command=_sample)


def _add_cluster_commands(commands: Any) -> None:
    """The commands for a cluster that `ray up CLUSTER` started."""
    submit = commands.add_parser(
        "submit",
        help="run a study on a cluster, follow it, bring the result back",
        epilog="STUDY: a study as `status` shows it, or its experiment's name; by default the latest.",
    )
    _add_cluster(submit)
    submit.add_argument("file", metavar="FILE", nargs="?", help="experiment file (YAML)")
    _add_overrides(submit, "overrides, e.g. budget.trials=4")
    which = submit.add_mutually_exclusive_group()
    which.add_argument("--follow", metavar="STUDY", nargs="?", const="", help="attach again to a submitted study")
    which.add_argument("--resume", metavar="STUDY", nargs="?", const="", help="go on with one that has not ended")
    submit.set_defaults(command=_submit)

    status = commands.add_parser("status", help="machines of a cluster, and the studies submitted to it")
    _add_cluster(status)
    status.set_defaults(command=_status)

    stop = commands.add_parser("stop", help="end a submitted study; what was done is kept")
    _add_cluster(stop)
    stop.add_argument(
        "study",
        metavar="STUDY",
        nargs="?",
        help="as `status` shows it, or its experiment's name; default: the latest that runs",
    )
    stop.set_defaults(command=_stop)


def _add_cluster(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("cluster", metavar="CLUSTER", help="the cluster's file for `ray up` (YAML)")


def _add_file(parser: argparse.ArgumentParser, optional: bool = False) -> None:
    parser.add_argument("file", metavar="FILE", nargs="?" if optional else None, help="experiment file (YAML)")
    _add_overrides(parser, "overrides, e.g. budget.trials=4")


def _add_overrides(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("overrides", metavar="KEY=VALUE", nargs="*", default=[], help=text)  # default: not required


def _add_address(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--address", help="a running Ray cluster to use (default: RAY_ADDRESS, else a private Ray)")


def _seed(text: str) -> int:
    if text.isdecimal() and int(text) < 2**32:
        return int(text)
    raise argparse.ArgumentTypeError(f"must be a whole number from 0 to {2**32 - 1}, not {text}")


def _count(text: str) -> int:
    if text.isdecimal() and int(text) >= 1:
        return int(text)
    raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, not {text}")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number, not {text}") from None


def _run(options: argparse.Namespace) -> None:
    from tune_rnn.experiment import Experiment
    from tune_rnn.study import run

    experiment = Experiment.load(options.file, options.overrides)
    _print(run(experiment, options.address, started=_process_start()).text)


def _resume(options: argparse.Namespace) -> None:
    from tune_rnn import ablation
    from tune_rnn.experiment import Experiment
    from tune_rnn.results.directory import open_run
    from tune_rnn.study import resume

    text = resume(options.run, options.overrides, options.address, started=_process_start()).text
    run = open_run(options.run)
    _print(ablation.report(run) if ablation.is_ablation(Experiment.of_run(run.experiment)) else text)


def _train(options: argparse.Namespace) -> None:
    from tune_rnn.experiment import Experiment
    from tune_rnn.single import Rerun, train

    seed = options.seed
    if options.source is not None:
        overrides = [*([options.file] if options.file else []), *options.overrides]
        again = Rerun.of(options.source, overrides)
        experiment, seed = again.experiment, again.seed if seed is None else seed
    elif options.file is None:
        raise InputError("train", "nothing to train", "Give an experiment FILE, or --from RUN[:TRIAL].")
    else:
        experiment = Experiment.load(options.file, options.overrides)
    _print(train(experiment, seed, started=_process_start()).text)


def _ablate(options: argparse.Namespace) -> None:
    from tune_rnn import ablation
    from tune_rnn.experiment import Experiment
    from tune_rnn.results.directory import open_run
    from tune_rnn.study import resume, run

    given = open_run(options.run)
    if not ablation.is_ablation(Experiment.of_run(given.experiment)):
        experiment = ablation.plan(options.run, options.seeds or 3, options.retune or 0, options.overrides)
        ablation.refuse_a_second(experiment)
        _print(ablation.size(experiment))
        given = open_run(run(experiment, options.address, started=_process_start()).path)
    elif options.seeds or options.retune or options.overrides:
        rule = "is an ablation, which keeps its seeds, learning rates and all other keys"
        raise InputError(options.run, rule, "Give the run that it came from, to begin another one.")
    elif not ablation.is_finished(given):
        resume(options.run, address=options.address, started=_process_start())
    _answer(ablation.report(given))


def _check(options: argparse.Namespace) -> None:
    from tune_rnn.checking import check
    from tune_rnn.experiment import Experiment

    _answer(check(Experiment.load(options.file, options.overrides)))


def _simulate(options: argparse.Namespace) -> None:
    from tune_rnn.simulation.table import compare

    given = (options.blackbox, options.workers, options.budget, options.seeds)
    _answer(compare(options.search, options.scheduler, *given))


def _evaluate(options: argparse.Namespace) -> None:
    from tune_rnn.kinds import KINDS
    from tune_rnn.results.evaluate import evaluate_run

    result = evaluate_run(options.run, options.split)
    if options.json:
        _answer(json.dumps(result))
        return
    loss, kind = result["loss"], KINDS[result["kind"]]
    metric = kind.wording.format(result[kind.metric])
    _answer(f"{options.split}: {loss:.6f} nats, {metric}, over {result['predictions']:,} predictions")


def _sample(options: argparse.Namespace) -> None:
    if options.length < 1:
        raise InputError("--length", "must be at least 1", value=options.length)
    from tune_rnn.exported import load_model
    from tune_rnn.precision import prepare_process
    from tune_rnn.results.directory import open_run
    from tune_rnn.results.mirror import is_remote

    prepare_process(threads=1)  # one character at a time: more threads would only wait for each other
    model = load_model(open_run(options.run).path if is_remote(options.run) else options.run)
    _answer(options.prompt + model.sample(options.prompt, options.length, options.temperature, options.seed))


def _submit(options: argparse.Namespace) -> None:
    from tune_rnn.submission import client

    overrides = [*([options.file] if options.file else []), *options.overrides]
    if options.resume and "=" in options.resume:  # an override, which argparse takes for the study
        overrides, options.resume = [options.resume, *overrides], ""
    if options.follow is not None and overrides:
        raise InputError("submit --follow", "only attaches to a study", "Leave out the rest.", overrides[0])
    if options.follow is not None:
        _print(client.follow(options.cluster, options.follow or None))
    elif options.resume is not None:
        _print(client.resume(options.cluster, options.resume or None, overrides))
    elif options.file is None:
        raise InputError("submit", "nothing to submit", "Give an experiment FILE, or --follow, or --resume.")
    else:
        _print(client.submit(options.cluster, options.file, options.overrides))


def _status(options: argparse.Namespace) -> None:
    from tune_rnn.submission import client

    _answer(client.status(options.cluster))


def _stop(options: argparse.Namespace) -> None:
    from tune_rnn.submission import client

    _answer(client.stop(options.cluster, options.study))


def _print(text: str) -> None:
    """Print what is also in the run directory: where the output does not take it, nothing is lost."""
    from tune_rnn.display import Display

    Display().say(text)


def _answer(text: str) -> None:
    """Print what the command was run for; fails where the output does not take it, unless its reader has gone away."""
    from tune_rnn.display import discard_output, encodable

    try:
        print(encodable(text, sys.stdout), flush=True)
    except BrokenPipeError:
        discard_output(sys.stdout)
    except OSError as error:
        discard_output(sys.stdout)
        raise TuneRnnError(f"the output cannot be written ({error.strerror})") from error


def _process_start() -> float:
    """When this command began: `summary.json` and budget.hours count from there, imports included."""
    import psutil

    return min(psutil.Process().create_time(), time.time())


if __name__ == "__main__":
    sys.exit(main())
