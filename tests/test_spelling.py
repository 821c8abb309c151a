"""The words of the repository: terms of the field in American spelling, in pages, comments, docstrings and messages.

Every entry of `SAY` is a pattern that must not be written, with the words to write instead. In a pattern, a space
matches any white space, so that phrases are found across line breaks.
"""

import io
import re
import subprocess
import tokenize
from bisect import bisect_right
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

STEMS = (
    "apolog|author|capital|categor|character|custom|digit|emphas|equal|final|general|harmon|initial|local|maxim|memor|"
    "minim|modern|normal|optim|organ|parallel|penal|prior|priorit|quant|random|real|recogn|regular|serial|special|"
    "stabil|standard|summar|synchron|token|util|vector|visual"
)
SAY = {
    # Resuming
    r"(go|goes|gone|went) on": "resume, continue",
    r"going on (with|from|after)": "resuming from",
    r"(breaks?|broke|broken) off": "interrupted, truncated",
    r"made again|(make|makes|making) (it|them) again": "recomputed, rebuilt",
    r"anew": "again",
    r"come[s]? along|came along": "is transferred",
    # Where things are
    r"(lies|lie|lay|lying) (in|on|at|beside|there|under)": "is in",
    r"stands? (in|there|beside)|stood in": "is in",
    r"(which|that) (is|are) not there": "is not installed, does not exist",
    r"(is|are) there twice": "duplicate",
    r"rooms": "packages",
    r"in the midst": "within",
    # Results
    r"no number( any ?more)?": "NaN",
    r"taken for": "predicted as",
    r"(correct|right|wrong) answers?": "predictions",
    r"what (he|she|it|they) got right": "correct predictions",
    r"surest": "most confident",
    r"(told|tell) (from|apart from)": "significantly different from",
    r"beyond chance": "significant",
    r"(learn|learns|learned|learning|learnt) by heart|by heart": "overfit",
    r"frames a second": "frames per second",
    # The terms of the field
    r"data sets?": "dataset",
    r"warm-start(s|ed)?|warm start(s|ed)?": "pretrained weights, fine-tuning",
    r"transplant(s|ed)?": "transfer",
    r"likeness(es)?": "near-duplicate",
    r"checkup": "scan",
    r"train(s|ed)? anew": "train again",
    r"by chance alone": "at random",
    r"mended weights": "repaired weights",
    r"shipped": "bundled",
    r"(a|one) (row|column) more": "another row",
    r"(shut|open) gates?|gates? (is|are) (shut|open)": "saturated at 0 or 1",
    r"frames? lie": "frames are",
    # Archaic words
    r"whilst|amongst|hence(forth)?|hitherto|herein|thrice|nought|ere": "",
    r"(there|where)(of|in|by)|whence": "",
    r"all the same": "anyway",
    r"or (its|their) like|and the like": "or a similar one",
    r"of no more use|of no use any more": "unusable",
    r"no longer of use": "unusable",
    # British spelling
    r"\w*colour\w*": "color",
    r"behaviour\w*": "behavior",
    r"favour\w*": "favor",
    r"neighbour\w*": "neighbor",
    r"(labour|honour|flavour|endeavour)\w*": "labor, honor, ...",
    r"centre[sd]?|centring": "center",
    r"(kilo|centi|milli)?metres?": "meter",
    r"greys?|greyscale": "gray",
    rf"(un|re|de)?({STEMS})is(e|es|ed|ing|er|ers|able|ation|ations)": "-ize, -ization",
    r"(analys|paralys|catalys)(e|es|ed|ing)": "-yze",
    r"(label|model|cancel|travel|signal|channel|tunnel|total)l(ed|ing|er|ers)": "one l",
    r"(artefact|programme|licence|judgement|catalogue|dialogue|cheque|tyre|aluminium|fulfil|skilful|enrol)s?": "",
    r"(defence|offence|pretence)s?": "-ense",
    r"(learnt|spelt|burnt|dreamt)": "-ed",
    r"towards": "toward",
}
SPACE = r"[\s#*>]+"  # within a phrase: also line breaks, and the signs that comments and quotes begin lines with
PATTERNS = {re.compile(rf"\b(?:{words.replace(' ', SPACE)})\b", re.IGNORECASE): SAY[words] for words in SAY}


def tracked(*patterns):
    """The files of the repository that match."""
    names = subprocess.check_output(["git", "ls-files", "-z", *patterns], cwd=ROOT, text=True).split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def prose_of_python(text):
    """Comments and strings, with everything else blank, so that positions stay."""
    lines = text.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    kept = [c if c == "\n" else " " for c in text]
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", -1)):
            begin, end = (starts[row - 1] + column for row, column in (token.start, token.end))
            kept[begin:end] = text[begin:end]
    return "".join(kept)


def findings(name, text):
    """A line for each phrase that must not be written: file, line, phrase and what to write instead."""
    starts = [match.end() for match in re.finditer("\n", text)]
    for pattern, instead in PATTERNS.items():
        for match in pattern.finditer(text):
            words = " ".join(match[0].split())
            hint = f": write {instead}" if instead else ""
            yield f"{name}:{bisect_right(starts, match.start()) + 1}: {words!r}{hint}"


PAGES = tracked("*.md", "*.html", "*.toml", "*.cff")
SOURCES = [path for path in tracked("*.py", "scripts/*") if path != Path(__file__).resolve()]


@pytest.mark.parametrize("path", [*PAGES, *SOURCES], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_words_of_the_field(path):
    text = path.read_text(encoding="utf-8")
    found = list(findings(path.relative_to(ROOT).as_posix(), prose_of_python(text) if path in SOURCES else text))
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("the run\n    # goes on with it", ["x:2: 'goes on': write resume, continue"]),
        ("a Data\nset, normalised", ["x:1: 'Data set': write dataset", "x:2: 'normalised': write -ize, -ization"]),
        ("this dataset is otherwise precise, and the noise rises", []),
    ],
)
def test_findings(text, found):
    assert list(findings("x", text)) == found


def test_prose_of_python():
    assert prose_of_python("""a = "b"  # c\n""").split() == ['"b"', "#", "c"]
