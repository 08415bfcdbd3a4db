# SPDX-License-Identifier: Apache-2.0
"""Parts of the command line that need no model: arguments, failures, progress."""

from __future__ import annotations

import argparse
import errno
import io
import os

import pytest

from cintervene.cli import main
from cintervene.cli.arguments.parameters import flag
from cintervene.cli.arguments.parser import COMMANDS, build_parser
from cintervene.cli.arguments.shared import NEGATIVE, reader
from cintervene.cli.common import console, failures
from cintervene.cli.common.budgets import evaluation_size, request_limit
from cintervene.cli.common.method_options import requested_config
from cintervene.errors import ArgumentError, ModelError, NonFiniteError
from cintervene.methods import PCRConfig
from cintervene.methods.registry import all_methods
from cintervene.prompts.calibration_size import CalibrationSize
from cintervene.prompts.evaluation_size import EvaluationSize
from cintervene.utils.parameters import parameters
from cintervene.utils.ranges import Auto, Layers, Options, Pair, Positive

LAYERS = reader([Auto(Layers(), "layers")])
STRENGTH = reader([Auto(Positive(), "a number")])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("auto", "auto"),
        ("3", (3,)),
        ("26-29", (26, 27, 28, 29)),
        ("0, 5-6,-1", (0, 5, 6, -1)),
    ],
)
def test_layers(text, expected):
    assert LAYERS(text) == expected


@pytest.mark.parametrize("text", ["", "a", "5-3", "1.5", "1,", "--2", "0-99999999999"])
def test_layers_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="26-29"):
        LAYERS(text)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--thresholds", "1", "-1e3"], (1.0, -1000.0)),
        (["--thresholds", "-.5", "-2.5E-1"], (-0.5, -0.25)),
        (["--thresholds", "-1.", "-1e+0"], (-1.0, -1.0)),
        (["--layers", "-2,-1"], (-2, -1)),
        (["--layers", "-1"], (-1,)),
    ],
)
def test_values_may_begin_with_a_minus(given, expected):
    arguments = build_parser("defend").parse_args(["defend", "--out", "x", *given])
    assert list(arguments.given.values()) == [expected]


@pytest.mark.parametrize("text", ["-1e3", "-inf", "-NaN", "-Infinity", "-0x1", "-1_0e"])
def test_values_with_a_minus_are_refused_as_values(text, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["defend", "--out", "x", "--strength", text])
    told = f"argument --strength: got {text!r}, expected "
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("command", list(COMMANDS))
def test_no_flag_begins_as_a_number_does(command):
    actions = build_parser(command)._subparsers._group_actions[0].choices[command]
    assert not [one for one in actions._option_string_actions if NEGATIVE.match(one)]


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "x", ""])
def test_numbers_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="number"):
        STRENGTH(text)


@pytest.mark.parametrize("text", ["0", "-1"])
def test_positive_numbers_are_expected(text):
    with pytest.raises(argparse.ArgumentTypeError, match="a positive number"):
        STRENGTH(text)


@pytest.mark.parametrize("text", ["nan", "inf", "x", ""])
def test_thresholds_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="expected a number"):
        reader([Pair()])(text)


def test_strength():
    assert STRENGTH("auto") == "auto"
    assert STRENGTH("2.5") == 2.5


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["unknown"],
        ["defend", "--forbid", "obedience"],
        ["defend", "--forbid", "obedience", "--out", "x", "--concepts", "vibes"],
        ["defend", "--forbid", "obedience", "--out", "x", "--strength", "1e308"],
        ["defend", "--forbid", "obedience", "--out", ""],
        ["defend", "--forbid", "obedience", "--out", " ", "--config", "x"],
        ["apply", "--intervention", "", "--out", "x"],
        ["explain", "--layers", "all"],
        ["explain", "--matrix", "up_proj"],
        ["apply", "--out", "x"],
    ],
)
def test_wrong_usage_is_one_line(argv, capsys):
    with pytest.raises(SystemExit) as end:
        main(argv)
    assert end.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.rstrip().endswith("--help")


def test_defend_without_words_says_what_to_give(tmp_path, capsys):
    assert main(["defend", "--out", str(tmp_path / "x")]) == 2
    assert (
        "--forbid, --examples, --harmful: got none; expected exactly one of them. Give "
        "words as --forbid, sentences" in capsys.readouterr().err
    )


HARMFUL = ["--harmful", "own"]
GIVEN = {
    "tsr": (
        ("--strength 2", "--max-kl and --max-false-refusals"),
        ("--concepts auto", "leave it out"),
        ("--min-effect 10", "leave it out"),
        ("--max-benign-loss 0.1", "give --max-false-refusals"),
        ("--max-obedience-loss 0.1", "leave it out"),
        ("--no-evaluate", "leave it out"),
        ("--thresholds 0 -0.5", "--max-kl and --max-false-refusals"),
        ("--examples x", "give --harmful"),
        ("--forbid obedience", "give --harmful"),
        ("--sharpness 2", "leave it out"),
    ),
    "arr": (("--strength auto", "--max-kl and --max-false-refusals"),),
    "gate": (
        ("--strength 2", "give --thresholds"),
        ("--matrix down_proj", "leave it out"),
    ),
    "pcr": (
        ("--max-false-refusals 0.1", "give --max-benign-loss"),
        ("--thresholds 0 -0.5", "give --strength"),
        ("--no-evaluate", "leave it out"),
        ("--max-obedience-loss 0.1", "leave it out"),
    ),
}


@pytest.mark.parametrize(
    ("method", "option", "instead"),
    [(method, *case) for method, cases in GIVEN.items() for case in cases],
)
def test_options_that_a_method_does_not_have(method, option, instead, tmp_path, capsys):
    pytest.importorskip("transformers")
    argv = ["defend", "--method", method, *HARMFUL, *option.split()]
    # No model of that name is looked for.
    assert main([*argv, "--model", "absent", "--out", str(tmp_path / "x")]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"cintervene: {option.split()[0]}: is ")
    assert instead in err
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_measured_has_no_goal(tmp_path, capsys):
    pytest.importorskip("transformers")
    argv = ["defend", "--forbid", "obedience", "--out", str(tmp_path / "x")]
    argv += ["--model", "absent", "--max-obedience-loss", "0.1"]
    assert main([*argv, "--no-evaluate"]) == 2
    assert "--no-evaluate skips; leave one of them out" in capsys.readouterr().err
    assert main(argv) == 3
    assert "model 'absent' is neither" in capsys.readouterr().err


def shown_help(capsys, command="defend"):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    return " ".join(capsys.readouterr().out.split())


def test_every_parameter_has_a_flag_with_help_and_default(capsys):
    text = shown_help(capsys)
    known = [
        one for method in all_methods().values() for one in parameters(method.config)
    ]
    # A name may be a number for some methods, and texts, without a flag, for others.
    flagged = {one.name for one in known if one.flag}
    for method in all_methods().values():
        assert f"{method.name}: {method.about}" in text
        for one in parameters(method.config):
            assert (flag(one.name) in text.split()) == (one.name in flagged)
            assert (one.help in text) or not one.flag
    for method, most in (("tsr", "0.03"), ("arr", "0.05"), ("gate", "0.04")):
        assert f"{most} for {method}" in text
    steps = (
        "--steps N tsr, arr, gate: steps of the descent (default: 40 for tsr and arr"
    )
    assert steps in text
    assert (
        "--max-kl NATS drift allowed on everyday prompts, a token (default: 0.05)"
        in text
    )


def test_flags_that_are_not_given_are_absent():
    parsed = build_parser().parse_args(["defend", "--out", "x"])
    assert parsed.given == {}
    argv = ["defend", "--out", "x", "--max-kl", "0.1", "--thresholds", "0", "-.5"]
    parsed = build_parser().parse_args([*argv, "--layers", "1-2"])
    assert parsed.given == {
        "max_kl": 0.1, "thresholds": (0.0, -0.5), "layers": (1, 2),
    }  # fmt: skip


def test_goals_of_evaluate_are_the_limits_of_pcr():
    pytest.importorskip("transformers")
    from cintervene.evaluate import Goals
    from cintervene.evaluate.words.goals import goals_of

    parsed = build_parser().parse_args(["evaluate"])
    assert goals_of(vars(parsed)) == Goals() == goals_of({})
    config = PCRConfig(forbid=["bomb"])
    assert (config.min_effect, config.max_kl) == (parsed.min_effect, parsed.max_kl)
    assert config.max_benign_loss == parsed.max_benign_loss


@pytest.mark.parametrize("argv", [["--version"], ["--help"], ["defend", "--help"]])
def test_help_and_version(argv, capsys):
    with pytest.raises(SystemExit) as end:
        main(argv)
    assert end.value.code == 0
    out, err = capsys.readouterr()
    assert out.strip()
    assert err == ""


def test_texts(tmp_path):
    pytest.importorskip("transformers")
    from cintervene.cli.common.inputs import read_texts

    assert len(read_texts("forbid", "obedience")) == 100
    assert len(read_texts("harmful", "own")) > 100
    path = tmp_path / "words.txt"
    path.write_text("# mine\nbomb\n", "utf-8")
    assert read_texts("forbid", str(path)) == ["bomb"]
    requests = tmp_path / "requests.txt"
    requests.write_text("Explain issue # 4521\nHOW?\nHow?\n", "utf-8")
    assert read_texts("harmful", str(requests)) == [
        "Explain issue # 4521",
        "HOW?",
        "How?",
    ]
    table = tmp_path / "table.csv"
    table.write_text("vanilla,adversarial\na,b\n", "utf-8")
    assert read_texts("harmful", f"{table}:adversarial") == ["b"]
    with pytest.raises(FileNotFoundError, match=r"obediance; give obedience or a"):
        read_texts("forbid", "obediance")
    with pytest.raises(FileNotFoundError, match=r"--safe: .* own; give a UTF-8 file"):
        read_texts("safe", "own")


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ArgumentError("bad"), 2, "bad"),
        (NonFiniteError("inputs[0, 1] is nan"), 3, "inputs[0, 1] is nan"),
        (ModelError("no model"), 3, "no model"),
        (MemoryError(), 3, "out of memory; end other programs or use a smaller model"),
        (ImportError("pip install it"), 3, "pip install it"),
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
            3,
            "no space left on device; free some space and run it again",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "/x"),
            3,
            "permission denied (/x); choose a place that you may use, or change its "
            "permissions",
        ),
        (OSError("odd"), 3, "odd"),
    ],
)
def test_failures(error, code, line):
    assert failures.failure(error) == (code, line)


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("max_kl: got -1; expected", "--max-kl: got -1; expected"),
        ("nats: got -1", "nats: got -1"),
        ("forbid, max_kl: got both", "--forbid, --max-kl: got both"),
        (
            "harmful: is x; give words as forbid=, or forbid=['bomb']",
            "harmful: is x; give words as --forbid, or forbid=['bomb']",
        ),
        (
            "max_kl; write it with beyond_limits=True",
            "max_kl; write it with --beyond-limits",
        ),
        ("c.toml: max_kl: got -1", "c.toml: max_kl: got -1"),
        ("the forbid list", "the forbid list"),
    ],
)
def test_the_command_names_flags(message, told):
    flags = {"--max-kl", "--forbid", "--beyond-limits"}
    assert failures.with_flags(message, flags) == told


def test_bugs_are_not_explained_away():
    assert failures.failure(KeyError("x")) is None


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_in_lines():
    stream, now = io.StringIO(), [0.0]
    shown = console.Console(stream, clock=lambda: now[0])
    shown("capture", 0, 10)
    now[0] = 10.0
    shown("capture", 4, 10)
    now[0] = 20.0
    shown("capture", 5, 10)
    now[0] = 22.0
    shown("capture", 6, 10)
    now[0] = 100.0
    shown("capture", 10, 10)
    shown("solve", 0, 0)
    shown.note("a line")
    assert stream.getvalue().splitlines() == [
        "capture ...",
        "capture: 5 of 10, 20 s left",
        "capture: done in 1 min 40 s",
        "solve ...",
        "solve: done in 0.0 s",
        "a line",
    ]


def test_progress_on_a_terminal():
    pytest.importorskip("tqdm")
    stream = Terminal()
    shown = console.Console(stream)
    shown("capture", 0, 4)
    shown("capture", 4, 4)
    shown("solve", 1, 2)
    shown.note("a line")
    text = stream.getvalue()
    assert "capture" in text
    assert "100%" in text
    assert " 50%" in text
    assert "left" in text
    assert text.endswith("\na line\n")


def asked(tmp_path, *argv):
    """The configuration that flags of `defend` ask for."""
    words = tmp_path / "words.txt"
    words.write_text("bomb\n")
    out = ["--out", str(tmp_path / "out"), "--forbid", str(words)]
    return build_parser().parse_args(["defend", *out, *argv])


def test_budgets_and_their_parts(tmp_path):
    arguments = asked(tmp_path, "--budget", "small", "--calibration-texts", "3")
    config = requested_config(arguments)
    assert config.calibration == CalibrationSize.named("small", texts=3)
    assert evaluation_size(arguments) == EvaluationSize.named("small")
    arguments = asked(tmp_path, "--evaluation-prompts", "7", "--max-rank", "16")
    config = requested_config(arguments)
    assert config.calibration == CalibrationSize()
    assert config.max_rank == 16
    assert evaluation_size(arguments) == EvaluationSize(prompts=7)


def test_parts_of_a_budget_override_a_file(tmp_path):
    file = tmp_path / "config.toml"
    file.write_text('method = "pcr"\n[calibration]\ntexts = 9\nprompts = 8\n')
    arguments = asked(
        tmp_path, "--config", str(file), "--calibration-prompts", "5"
    )  # fmt: skip
    assert requested_config(arguments).calibration == CalibrationSize(
        texts=9, prompts=5
    )


def test_budgets_of_other_methods(tmp_path):
    out = ["--out", str(tmp_path), "--method", "gate"]
    arguments = build_parser().parse_args(["defend", *out, "--budget", "small"])
    assert requested_config(arguments).benign == 60
    argv = ["defend", *out, "--calibration-texts", "3"]
    with pytest.raises(ArgumentError, match="--calibration-texts: is no option of"):
        requested_config(build_parser().parse_args(argv))


def test_requests_by_budget():
    small = ["--budget", "small"]
    for argv, expected in (([], 60), (small, 15), ([*small, "--limit", "4"], 4)):
        arguments = build_parser().parse_args(["evaluate", *argv])
        assert request_limit(arguments) == expected


def test_homes_are_found_behind_an_equals_sign(tmp_path, monkeypatch):
    from cintervene.cli.common.inputs import read_texts

    monkeypatch.setenv("HOME", str(tmp_path))
    parsed = build_parser().parse_args(
        ["apply", "--intervention=~/a/b", "--out=~/c", "--report", "d~"]
    )
    assert parsed.intervention == tmp_path / "a" / "b"
    assert parsed.out == tmp_path / "c"
    assert str(parsed.report) == "d~"
    (tmp_path / "words").write_text("bad\n", "utf-8")
    assert read_texts("forbid", "~/words") == ["bad"]
    with pytest.raises(ArgumentError, match="--forbid: got ''; expected a file"):
        read_texts("forbid", "")
    with pytest.raises(SystemExit):
        build_parser().parse_args(["apply", "--out=~nobody-at-all/x"])


@pytest.mark.parametrize(
    "argv",
    [
        ["explain", "--model", "~nobody-at-all/x"],
        ["compare", "~nobody-at-all/x", "smollm2"],
        ["defend", "--forbid", "~nobody-at-all/words.txt", "--out", "x"],
    ],
)
def test_a_home_of_nobody_is_one_line(argv, capsys):
    assert main(argv) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "got '~nobody-at-all/" in line
    assert "nobody of that name has a home" in line


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a=1,a=2", "each name once"), ('{"a": 1, "a": 2}', "'a' stands twice")],
)
def test_options_have_each_name_once(text, expected):
    with pytest.raises(argparse.ArgumentTypeError, match=expected):
        reader([Options()])(text)
