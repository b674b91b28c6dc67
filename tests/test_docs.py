"""Commands, snippets, links and names in the documentation are true.

The fenced snippets of docs/downstream.md are run by `test_downstream.py`, those of
docs/keras.md by `test_keras.py`.
"""

import argparse
import copy
import doctest
import importlib
import inspect
import re
import shlex
import sys
from pathlib import Path

import pytest
from absl import flags

from tf_dpred import flags as tf_dpred_flags
from tf_dpred import main as tf_dpred_main
from tf_dpred import recipes, train
from tf_dpred.config import Config, FilesConfig
from tf_dpred.networks import resnet

CHECKOUT = Path(__file__).parent.parent
PAGES = [
    CHECKOUT / "README.md",
    CHECKOUT / "CONTRIBUTING.md",
    *sorted((CHECKOUT / "docs").rglob("*.md")),
]
PLACES = ("configs", "docs", "notebooks", "tests", "tf_dpred", "tools")
PROGRAM = re.compile(
    r"(?:^|(?<=[\s'\"]))(?:\.venv/bin/)?(python(?: -m)? [\w./]+|tf-dpred|make)(?=\s|$)"
)
# In place of a number of which the page says only where it comes from.
PLACEHOLDERS = {"=STEPS": "=1"}


def of_pages(test):
    return pytest.mark.parametrize(
        "page", PAGES, ids=lambda p: str(p.relative_to(CHECKOUT))
    )(test)


# What a page holds.


def code_lines(text):
    """Lines of indented and fenced code; continued ones are joined."""
    text = re.sub(r"\\\n\s*", " ", text)
    fenced = False
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            yield line.strip()


def prose(text):
    """A page without its code blocks."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"^(    .*\n)+", "\n", text, flags=re.MULTILINE)


def spans(text):
    """What stands in single backticks."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose(text))]


def commands(text):
    """(program, arguments) of each command line."""
    for line in [*code_lines(text), *spans(text)]:
        match = PROGRAM.search(line)
        if match is None or (match[1] == "make" and match.start() > 0):
            continue
        rest = line[match.end() :].strip().rstrip("'")
        for placeholder, value in PLACEHOLDERS.items():
            rest = rest.replace(placeholder, value)
        arguments = [a for a in shlex.split(rest, comments=True) if a != "..."]
        yield match[1].removeprefix("python ").removeprefix("-m "), arguments


def names(span):
    """A name with braces, {a,b}, is several."""
    match = re.search(r"\{([^}]*,[^}]*)\}", span)
    if match is None:
        return [span]
    before, after = span[: match.start()], span[match.end() :]
    return [before + choice.strip() + after for choice in match[1].split(",")]


# What is true of it.


def own_flags(*others):
    """Of tf_dpred, of its log and of other modules: tests may have defined more."""
    modules = (tf_dpred_flags.__name__, "absl.logging", *others)
    by_module = flags.FLAGS.flags_by_module_dict()
    return [flag for module in modules for flag in by_module.get(module, [])]


def check_flags(arguments, *others):
    """The program takes them: names, values, and all rules of the Config."""
    values = flags.FlagValues()
    for flag in own_flags(*others):
        values[flag.name] = copy.deepcopy(flag)
    values.unparse_flags()
    known = [a for a in arguments if a not in ("--help", "--helpfull")]
    given = values.read_flags_from_files(known, force_gnu=False)
    left = values(recipes.expand(["tf_dpred", *given]))[1:]
    assert not left, f"received {left}, accepted: flags"
    Config.from_dict(tf_dpred_flags.given_settings(values))
    files = tf_dpred_flags.given_files(values)
    FilesConfig(**files)
    strange = files.keys() - set(tf_dpred_main.MODES[values["mode"].value].files)
    assert not strange, f"received {strange} with --mode={values['mode'].value}"


class Parsed(Exception):
    """Ends a program once it has read its command line."""


def check_tool(module, arguments, monkeypatch):
    """The arguments parser of a program takes them; nothing is run."""
    known_args = argparse.ArgumentParser.parse_known_args

    def parse_known_args(parser, given=None, namespace=None):
        raise Parsed(*known_args(parser, given, namespace))

    def parse_args(parser, given=None, namespace=None):
        values, left = known_args(parser, given, namespace)
        assert not left, f"{module}: unknown {left}"
        raise Parsed(values, [])

    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", parse_known_args)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    main = importlib.import_module(module).main
    with pytest.raises(Parsed) as parsed:
        main(*[arguments] * len(inspect.signature(main).parameters))
    values, left = parsed.value.args
    check_flags([*getattr(values, "flags", []), *left])


def check_command(program, arguments, monkeypatch):
    """A program exists and takes its arguments."""
    if program == "make":
        (target,) = arguments
        makefile = (CHECKOUT / "Makefile").read_text()
        assert re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE), target
        return
    if program in ("tf-dpred", "tf_dpred.main"):
        check_flags(arguments)
        return
    if program == "pytest":
        for argument in arguments:
            assert "/" not in argument or (CHECKOUT / argument).exists(), argument
        return
    path = CHECKOUT / program.removesuffix(".py").replace(".", "/")
    if path.is_dir():
        path = path / "__main__"
    path = path.with_suffix(".py")
    module = ".".join(path.with_suffix("").relative_to(CHECKOUT).parts)
    if "argparse" in path.read_text():
        check_tool(module, arguments, monkeypatch)
    else:
        importlib.import_module(module)
        given = [a for a in arguments if a.startswith("-")]
        check_flags(given, module, "tools.benchmark.clock")


def options():
    """Names of all options of tf_dpred and of the tools."""
    found = {"flagfile", "help", "helpfull"}
    for flag in own_flags():
        found |= {flag.name, f"no{flag.name}"} if flag.boolean else {flag.name}
    scaling = importlib.import_module("tools.scaling")
    found |= {o.lstrip("-") for o in scaling.options()._option_string_actions}
    sources = [*CHECKOUT.glob("tools/**/*.py"), *CHECKOUT.glob("tf_dpred/*/*.py")]
    for path in sources:
        found |= set(re.findall(r'add_argument\(\s*"--([\w-]+)"', path.read_text()))
    return found


def check_name(name):
    """A file, directory, module or attribute of the package."""
    if re.fullmatch(r"tf_dpred(\.\w+)+", name):
        parts = name.split(".")
        for count in range(len(parts), 0, -1):
            try:
                found = importlib.import_module(".".join(parts[:count]))
            except ModuleNotFoundError:
                continue
            for part in parts[count:]:
                found = getattr(found, part)
            return
    assert list(CHECKOUT.glob(name.rstrip("/"))), f"there is no {name}"


def check_link(page, target):
    """The file of a relative link, and the heading that it names."""
    path, _, anchor = target.partition("#")
    linked = (page.parent / path) if path else page
    assert linked.exists(), f"{page.name}: no {target}"
    if anchor:
        headings = re.findall(r"^#+ (.*)", linked.read_text(), re.MULTILINE)
        kept = [re.sub(r"[^\w\s-]", "", h).strip().lower() for h in headings]
        assert anchor in [re.sub(r"[\s-]+", "-", h) for h in kept], target


# The tests.


@of_pages
def test_commands__are_accepted(page, monkeypatch):
    monkeypatch.chdir(CHECKOUT)
    for program, arguments in commands(page.read_text()):
        with monkeypatch.context() as patch:
            check_command(program, arguments, patch)


@of_pages
def test_names__exist(page):
    text = page.read_text()
    known = options()
    for span in spans(text):
        for name in names(span):
            if re.match(rf"({'|'.join(PLACES)})[/.][\w*]", name) and " " not in name:
                check_name(name)
            if re.fullmatch(r"\w+\.cfg", name):
                check_name(f"configs/{name}")
        for option in re.findall(r"(?:^|\s)--(\w[\w-]*)", span):
            assert option in known, f"{page.name}: --{option}"
    for module in re.findall(r"^::: (\S+)", text, re.MULTILINE):
        check_name(module)
    for place in re.findall(rf"(?<![\w/])(?:{'|'.join(PLACES)})/[\w/]+\.\w+", text):
        check_name(place)
    for included in re.findall(r'^--8<-- "(.*)"', text, re.MULTILINE):
        check_name(included)


@of_pages
def test_links__exist(page):
    text = re.sub(r"`[^`]+`", "", prose(page.read_text()))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith("https://"):
            check_link(page, target)


def test_site__lists_every_page():
    listed = re.findall(r"[\w/]+\.md$", (CHECKOUT / "mkdocs.yml").read_text(), re.M)
    pages = CHECKOUT.glob("docs/**/*.md")
    found = [str(page.relative_to(CHECKOUT / "docs")) for page in pages]
    assert sorted(listed) == sorted(found)


@of_pages
def test_extras__exist(page):
    setup = (CHECKOUT / "setup.cfg").read_text()
    for extra in re.findall(r'"(?:tf-dpred|\.)\[(\w+)\]"', page.read_text()):
        assert re.search(rf"^{extra} =$", setup, re.MULTILINE), extra


@pytest.mark.parametrize(
    "page", [p for p in PAGES if ">>>" in p.read_text()], ids=lambda p: p.stem
)
def test_snippets__run(page, monkeypatch):
    # CONTRIBUTING.md adds one.
    monkeypatch.setattr(resnet, "ARCHITECTURES", dict(resnet.ARCHITECTURES))
    failed, tried = doctest.testfile(str(page), module_relative=False)
    assert failed == 0 and tried > 2


@of_pages
def test_snippets__of_python_are_all_run(page):
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S)
    untested = [block for block in blocks if ">>>" not in block]
    assert not untested or page.name in ("downstream.md", "keras.md")


def test_readme__from_python(tmp_path, monkeypatch):
    """All of the example but the training itself."""
    text = (CHECKOUT / "README.md").read_text()
    (block,) = re.findall(r"^## From Python\n\n((?:    .*\n|\n)+)", text, re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train.Pretraining, "train", lambda self: None)
    found = {}
    exec(compile(inspect.cleandoc("\n" + block), "README.md", "exec"), found)
    comment = re.search(r"representations = .*# (\[.*\])", block)[1]
    assert str(list(found["representations"].shape)) == comment


ERRORS = (AssertionError, OSError, SystemExit, ValueError, flags.Error)
WRONG = [
    ("    python -m tf_dpred.main --no_such_flag=1", "no_such_flag"),
    ("`python -m tf_dpred.main --epochs=many`", "many"),
    ("    python -m tf_dpred.main --batch_size=9 --accumulation_steps=2", "divisor"),
    ("    python -m tf_dpred.main --flagfile=configs/none.cfg", "none.cfg"),
    ("    tf-dpred --recipe=none", "--recipe: received 'none'"),
    ("    tf-dpred --method=moco", "moco"),
    ("```sh\npython tools/none.py\n```", "none.py"),
    ("    python -m tf_dpred.main --mode=embed --query=a.jpg", "query"),
    ("    python -m tf_dpred.main --mode=search --neighbours=0", "--neighbours"),
    ("    python tools/screenshots.py runs", "SystemExit"),
    ("    python tools/screenshots.py a b --fast", "--fast"),
    ("    python tools/soak.py -- \\\n      --epochz=3", "epochz"),
    ("    python -m tools.scaling --per_device=two", "SystemExit"),
    ("    python -m tf_dpred.theory --figures=3", "figures"),
    ("    python -m tools.benchmark.inputs --stages=all", "stages"),
    ("    make tea", "tea"),
    ("`python -m pytest tests/test_none.py`", "test_none"),
]


@pytest.mark.parametrize(("text", "message"), WRONG, ids=lambda v: str(v)[:40])
def test_check_command__finds_what_is_wrong(text, message, monkeypatch):
    monkeypatch.chdir(CHECKOUT)
    ((program, arguments),) = commands(text)
    with pytest.raises(ERRORS) as e:
        check_command(program, arguments, monkeypatch)
    assert message in f"{e.typename} {e.value}"


@pytest.mark.parametrize(
    "name", ["docs/none.md", "tf_dpred.losses.none", "configs/none.cfg", "tools/none"]
)
def test_check_name__finds_what_is_wrong(name):
    with pytest.raises((AssertionError, AttributeError)):
        check_name(name)


@pytest.mark.parametrize("target", ["none.md", "docs/recovery.md#none"])
def test_check_link__finds_what_is_wrong(target):
    with pytest.raises(AssertionError):
        check_link(CHECKOUT / "README.md", target)
