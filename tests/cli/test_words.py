"""The words of a question on the command line: what is a file, what is the question, and what are choices."""

from __future__ import annotations

import pytest

from omnisink import OmnisinkError
from omnisink.cli.demo import CLIP
from omnisink.cli.media import MediaOptions, check_media, gather_choices, is_file, split_words
from tests.cli.command import refused

FILE = str(CLIP)


@pytest.mark.parametrize(
    ("given", "choices"),
    [
        (["--choices", "a", "b"], ["a", "b"]),
        (["--choices", "-1", "0", "1"], ["-1", "0", "1"]),
        (["--choices", "-0.5", "-.5", "-1e3", "-5 °C", "-٣", "−2"], ["-0.5", "-.5", "-1e3", "-5 °C", "-٣", "−2"]),
        (["--choices=-x", "b"], ["-x", "b"]),
        (["--choices", "a", "b", "--json"], ["a", "b"]),
        (["--choices", "a", "b", "-m", "x"], ["a", "b"]),
        (["--choices", "a", "--choices", "b"], ["a", "b"]),
    ],
)
def test_choices_go_on_to_the_next_option(given, choices):
    out = gather_choices(["ask", "why?", *given])
    assert [word.removeprefix("--choices=") for word in out if word.startswith("--choices=")] == choices
    assert out[:2] == ["ask", "why?"]
    assert [word for word in out if word in given and not word.startswith("--choices")] == [
        word for word in given if word not in choices and not word.startswith("--choices")
    ]


def test_choices_without_any_are_refused_by_the_options():
    assert gather_choices(["ask", "why?", "--choices"])[-1] == "--choices"
    assert gather_choices(["--choices", "--json"]) == ["--choices", "--json"]
    assert gather_choices([]) == []


@pytest.mark.parametrize(
    ("words", "choices", "says"),
    [
        ([FILE], None, "is a file, and there is no question about it"),
        (["absent.mp4"], None, "is a file, and there is no question about it"),
        (["absent.MP4"], None, "is a file, and there is no question about it"),
        (["my clip.Mov"], None, "is a file, and there is no question about it"),
        (["photo.JPEG"], None, "is a file, and there is no question about it"),
        (["https://example.org/clip.webm"], None, "is a file, and there is no question about it"),
        (["."], None, "is a file, and there is no question about it"),
        ([FILE], ["a", "b", "c", "d", "What?"], "--choices takes all words after it"),
        ([], ["a", "b", "What?"], "there is no question; --choices takes all words after it"),
        ([FILE, "absent.wav"], None, "two files and no question: .* --audio"),
        ([FILE, FILE], None, "two files and no question"),
        (["What is shown?", FILE], None, "is a file and comes before the question"),
        (["What is shown?", "absent.mp4"], None, "is a file and comes before the question"),
        (["What is shown?"], ["a", "b", FILE], "is a file among the choices"),
        (["a", "b", "c"], None, "got 3 arguments: put the question in quotation marks"),
    ],
)
def test_words_that_are_no_question_are_refused_with_the_remedy(words, choices, says):
    with pytest.raises(OmnisinkError, match=says):
        split_words(words, choices)


@pytest.mark.parametrize(
    ("words", "choices", "found"),
    [
        (["What is shown?"], None, (None, "What is shown?")),
        (["bird"], ["a", "b"], (None, "bird")),
        (["-"], None, (None, "-")),
        ([FILE, "-"], None, (FILE, "-")),
        (["absent.mp4", "What?"], None, ("absent.mp4", "What?")),
        (["What is in clip.mp4?"], None, (None, "What is in clip.mp4?")),
        (["Which file?"], ["a.mp4", "b.mp4"], (None, "Which file?")),
        (["What is 1.5?"], ["-1", "0"], (None, "What is 1.5?")),
    ],
)
def test_files_and_questions_are_told_apart(words, choices, found):
    assert split_words(words, choices) == found


def test_a_word_longer_than_a_name_of_a_file_may_be_is_none():
    assert not is_file("A" * 200_000)
    assert not is_file("a\0b")


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("ask", FILE, "--model", "x"), "there is no question about it"),
        (("ask", FILE, "--model", "x", "--choices", "a", "b", "What?"), "the question comes before it"),
        (("ask", "absent.mp4", "What?", "--model", "x"), "absent.mp4: there is no such file"),
        (("ask", ".", "What?", "--model", "x"), "is a folder, not a file"),
        (("ask", __file__, "What?", "--model", "x"), "not a media file"),
        (("ask", FILE, "What?", "--audio", "absent.wav", "--model", "x"), "absent.wav: there is no such file"),
        (("ask", FILE, "What?", "--audio", FILE, "--no-audio", "--model", "x"), "exclude each other"),
        (("ask", "What?", "--choices", "one", "--model", "x"), "choices must be two texts or more"),
        (("ask", FILE, "What?", "--model", "smollm2-135m"), "smollm2-135m takes text only"),
        (("find", FILE, "What?", "--model", "smollm2-135m"), "smollm2-135m takes text only"),
        (("find", FILE, FILE, "--model", "x"), "two files and no question"),
    ],
)
def test_all_of_it_is_said_before_a_model_is_looked_for(args, says):
    """The model is called x, which there is not: its message would come first, were it looked for."""
    assert says in refused(*args)


def test_what_a_question_needs_is_known_from_its_files():
    asked, about = check_media(FILE, MediaOptions(frames=4))
    assert (asked["video"], about) == (FILE, {"video"})
    assert check_media(FILE, MediaOptions(no_audio=True))[0]["audio"] is False
    assert check_media(None, MediaOptions(audio=FILE)) == ({"audio": FILE}, {"audio"})
    assert check_media(None) == ({}, set())
