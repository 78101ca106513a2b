"""The program: its exit codes, and one sentence for everything that is the user's to mend."""

import json

import pytest

from edgekron.cli.main import COMMANDS, main
from edgekron.errors import UserError
from edgekron.models import NETWORKS


def failure(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line on standard error of a command that fails with exit code 2 and prints nothing else."""
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("edgekron: error: ")
    assert err.count("\n") == 1
    return err.removeprefix("edgekron: error: ")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["bnech"], "there is no command 'bnech'; did you mean bench?"),
        (["xyzzy"], "there is no command 'xyzzy'; see edgekron --help."),
        (["inspect", "sixcon"], "there is no model 'sixcon'; did you mean sixconv? Otherwise give a bundled name"),
        (["inspect", "xyzzy"], "there is no model 'xyzzy'; give a bundled name"),
        (["inspect", "nowhere.onnx"], "nowhere.onnx"),
        (["inspect", "no.such.module:make"], "no.such.module:make cannot be imported"),
        (["inspect", "torch.nn:Identity"], "torch.nn:Identity needs --input-shape"),
        (["inspect", "math:pi"], "math:pi gives a float, not a torch.nn.Module."),
        (["inspect", "torch.nn:Identity", "--input-shape", "3,x"], "--input-shape '3,x' must be positive numbers"),
        (["compress", "sixconv", "-o", "out"], "say how much to compress by --ratio and --params"),
        (["compress", "sixconv", "-o", "out", "--ratio", "2", "--data", "nowhere"], "there is no data set 'nowhere'"),
        (["export", "sixconv", "--to", "onnx", "-o", "out.tflite"], "out.tflite should end in .onnx"),
    ],
)
def test_bad_input_is_one_sentence(words, sentence, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert sentence in failure(capsys, *words)
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_the_traceback():
    with pytest.raises(UserError, match="there is no model 'xyzzy'"):
        main(["inspect", "xyzzy", "--debug"])


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("say this."), 2, "edgekron: error: say this.\n"),
        (PermissionError(13, "Permission denied", "secret"), 2, "edgekron: error: secret: Permission denied; check"),
        (ModuleNotFoundError("no", name="torch.nn"), 2, "edgekron: error: this command needs torch, which is not"),
        (KeyboardInterrupt(), 130, "edgekron: interrupted\n"),
    ],
)
def test_errors_of_a_command(error, code, line, capsys, monkeypatch):
    def run(_: object) -> int:
        raise error

    monkeypatch.setattr("edgekron.cli.models.run", run)
    assert main(["models"]) == code
    assert capsys.readouterr().err.startswith(line)


@pytest.mark.parametrize("error", [ValueError("a bug"), OSError("a bug"), ModuleNotFoundError("x", name="edgekron.x")])
def test_a_bug_is_not_dressed_up(error, monkeypatch):
    def run(_: object) -> int:
        raise error

    monkeypatch.setattr("edgekron.cli.models.run", run)
    with pytest.raises(type(error)):
        main(["models"])


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name, capsys):
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert "--json" in text
    assert "--debug" in text


def test_models_lists_every_network(capsys):
    assert main(["models", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["models"]}
    assert list(rows) == list(NETWORKS)
    assert rows["resnet18"]["parameters"] == 11_689_512
    assert rows["sixconv"]["top1"] > 93.5
