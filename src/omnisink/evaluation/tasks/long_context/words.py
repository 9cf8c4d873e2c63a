"""Words for names and lists. None of `WORDS` is part of another, so that one is never found in place of another."""

from __future__ import annotations

_COLOURS = (
    "amber", "azure", "bronze", "coral", "crimson", "ebony", "emerald", "golden", "indigo", "ivory", "jade",
    "lavender", "lilac", "magenta", "maroon", "olive", "orange", "purple", "ruby", "saffron", "scarlet", "silver",
    "turquoise", "violet",
)  # fmt: skip
_THINGS = (
    "airship", "anchor", "beacon", "cabinet", "caravan", "compass", "dolphin", "falcon", "glacier", "harbour",
    "island", "jaguar", "kettle", "ladder", "lighthouse", "meadow", "observatory", "panther", "pavilion", "rocket",
    "submarine", "tunnel", "volcano", "windmill",
)  # fmt: skip
#: Names of things, as "amber lighthouse".
NAMES = tuple(f"{colour} {thing}" for thing in _THINGS for colour in _COLOURS)

#: For lists of words.
WORDS = (
    "acorn", "album", "alley", "apple", "apron", "arrow", "attic", "autumn", "badge", "bagel", "bamboo",
    "banjo", "barley", "basin", "beetle", "belt", "bench", "berry", "blanket", "blossom", "border", "bottle",
    "branch", "brick", "bridge", "broom", "bubble", "bucket", "bundle", "butter", "button", "cable", "cactus",
    "camera", "candle", "canoe", "canvas", "carpet", "castle", "cattle", "cedar", "cello", "chalk", "cheese",
    "cherry", "chimney", "circus", "clinic", "clover", "cobweb", "coffee", "comet", "copper", "cotton", "cousin",
    "cradle", "crater", "crayon", "cricket", "crowd", "crystal", "curtain", "cushion", "dagger", "daisy", "dancer",
    "desert", "diary", "dinner", "donkey", "dragon", "drawer", "duchess", "eagle", "easel", "echo", "elbow",
    "engine", "errand", "fabric", "factory", "feather", "fence", "ferry", "fiddle", "flag", "flute", "folder",
    "forest", "fossil", "fountain", "freezer", "galaxy", "garlic", "ginger", "giraffe", "glove", "goblet", "grape",
    "gravel", "guitar", "hammer", "handle", "hazel", "helmet", "hockey", "honey", "hotel", "hunter", "insect",
    "jacket", "jelly", "jewel", "jungle", "kennel", "kitten", "ladle", "lagoon", "lantern", "lawyer", "leather",
    "lemon", "lettuce", "lever", "library", "lizard", "lobster", "locket", "lumber", "magnet", "mango", "marble",
    "mask", "mattress", "melon", "mirror", "mitten", "monkey", "morning", "mosaic", "motor", "muffin", "museum",
    "napkin", "necklace", "needle", "nephew", "noodle", "nurse", "oasis", "onion", "orchid", "oven",
    "oyster", "paddle", "palace", "parade", "parrot", "pastry", "peach", "pebble", "pelican", "pencil", "pepper",
    "picnic", "pigeon", "pillow", "pirate", "planet", "pocket", "poet", "pottery", "powder", "prairie", "puddle",
    "pumpkin", "puppet", "puzzle", "quarry", "quilt", "rabbit", "raccoon", "radio", "raft", "ribbon", "river",
    "rooster", "saddle", "sailor", "salmon", "sandal", "satchel", "saucer", "scarf", "school", "shadow", "shelf",
    "sherbet", "shovel", "signal", "sister", "sketch", "slipper", "soldier", "spider", "spinach", "sponge", "spoon",
    "square", "squirrel", "stable", "statue", "stove", "sugar", "sunset", "swamp", "sweater", "tailor", "temple",
    "tennis", "thistle", "thunder", "ticket", "timber", "toast", "tomato", "tractor", "trumpet", "turnip", "turtle",
    "uncle", "vase", "velvet", "village", "violin", "voyage", "waffle", "wagon", "walnut", "walrus", "willow",
    "winter", "wizard", "wrench", "yacht", "zebra",
)  # fmt: skip
