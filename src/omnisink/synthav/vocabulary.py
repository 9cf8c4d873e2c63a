"""The words of SynthAV, and the combinations that only its test split may hold."""

from __future__ import annotations

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (215, 40, 40),
    "green": (40, 150, 60),
    "blue": (45, 80, 215),
    "yellow": (240, 215, 40),
    "orange": (240, 135, 30),
    "purple": (130, 50, 170),
    "pink": (250, 150, 190),
    "white": (248, 248, 248),
}
#: Objects that make no sound of their own, and objects that do.
SILENT = ("circle", "square", "triangle", "star")
SOUNDING = ("bell", "drum", "clock", "bird")
OBJECTS = SILENT + SOUNDING

SIZES = ("small", "large")
DIRECTIONS = ("left", "right", "up", "down")
NUMBERS = ("one", "two", "three", "four")

#: Sounds with no object, the objects' own sounds, and a voice that says one word.
TONES = ("beep", "buzz")
VOICE = "voice"
SOUNDS = (*TONES, *SOUNDING, VOICE)
PITCHES = ("low", "high")
LOUDNESS = ("quiet", "loud")
#: What the voice may say.
SPOKEN = (*COLOURS, *OBJECTS)

_COLOUR_NAMES = tuple(COLOURS)
#: One object of every colour, and so one colour of every object, never shown in training. They lie on a diagonal, so
#: that every colour and every object is seen in seven other combinations.
HELD_OUT_OBJECTS = frozenset((_COLOUR_NAMES[i], OBJECTS[(3 * i + 2) % len(OBJECTS)]) for i in range(len(OBJECTS)))
#: Objects and sounds never heard together in training. An object's own sound is not among them: it would give the
#: answer to "do they match?" away.
HELD_OUT_SOUNDS = frozenset(
    {
        ("circle", "buzz"),
        ("square", "bell"),
        ("triangle", "bird"),
        ("star", "drum"),
        ("bell", "clock"),
        ("drum", "bird"),
        ("clock", "beep"),
        ("bird", "bell"),
    }
)


def plural(noun: str) -> str:
    """Return the plural of one of the objects."""
    return f"{noun}s"


def article(words: str) -> str:
    """Put "a" or "an" before some words."""
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"
