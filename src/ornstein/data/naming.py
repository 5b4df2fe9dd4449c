"""How the vocabulary's names stand in a sentence: articles, plurals, and which of them can be given another colour."""

from __future__ import annotations

# Names that take neither article nor number: plurals, and what is not counted.
UNCOUNTED_NAMES = frozenset(
    {
        "cherries", "grapes", "blueberries", "french fries", "pancakes", "jeans", "glasses", "sunglasses", "gloves", "socks",
        "books", "scissors", "eyes", "thumbs up", "thumbs down", "paw prints", "peanuts", "clinking glasses", "lungs", "ballet shoes",
        "shorts", "goggles", "prayer beads", "skis", "crossed swords", "maracas", "theatre masks", "nesting dolls", "hundred points",
        "flexed biceps",
        "corn", "broccoli", "popcorn", "bacon", "fire", "lightning", "cheese", "sushi", "yarn", "bowling", "baguette bread",
        "meat on bone", "lettuce", "garlic", "bread", "spaghetti", "dango", "coral", "soap", "dna", "ping pong", "ice hockey",
        "sunrise over mountains", "Statue of Liberty", "noodle soup",
    }
)  # fmt: skip
_IRREGULAR_PLURALS = {
    "tomato": "tomatoes", "mango": "mangoes", "potato": "potatoes", "volcano": "volcanoes", "tornado": "tornadoes",
    "sheep": "sheep", "deer": "deer", "moai": "moai", "moose": "moose", "bison": "bison", "fish": "fish", "goose": "geese",
    "wolf": "wolves", "tropical fish": "tropical fish", "blowfish": "blowfish", "jellyfish": "jellyfish", "snowman": "snowmen",
    "tooth": "teeth", "kitchen knife": "kitchen knives", "fork and knife": "forks and knives", "bow and arrow": "bows and arrows",
    "cup of coffee": "cups of coffee", "glass of milk": "glasses of milk", "drop of blood": "drops of blood",
    "pile of poo": "piles of poo", "sheaf of rice": "sheaves of rice", "spool of thread": "spools of thread",
    "star of David": "stars of David", "nest with eggs": "nests with eggs", "sun with face": "suns with faces",
    "cup with straw": "cups with straws", "heart with arrow": "hearts with arrows", "sun behind cloud": "suns behind clouds",
    "cloud with lightning": "clouds with lightning", "cloud with rain": "clouds with rain", "computer mouse": "computer mice",
    "face with tears of joy": "faces with tears of joy", "smiling face with sunglasses": "smiling faces with sunglasses",
    "smiling face with heart-eyes": "smiling faces with heart-eyes",
    "globe showing Americas": "globes showing Americas", "game die": "game dice",
}  # fmt: skip


def indefinite(name: str) -> str:
    """The name with its article: "an orange", "a red apple", "french fries"."""
    return name if name in UNCOUNTED_NAMES else f"{_article(name)} {name}"


def described(name: str, *adjectives: str) -> str:
    """The same with adjectives, empty ones left out: "a small orange fox", "blue jeans"."""
    words = " ".join([*(word for word in adjectives if word), name])
    return words if name in UNCOUNTED_NAMES else f"{_article(words)} {words}"


def plural(name: str) -> str:
    """The name in the plural: "red apples", "strawberries", "foxes"."""
    if name in UNCOUNTED_NAMES:
        return name
    if name in _IRREGULAR_PLURALS:
        return _IRREGULAR_PLURALS[name]
    if name.endswith("y") and name[-2] not in "aeiou":
        return name[:-1] + "ies"
    if name.endswith(("s", "x", "ch", "sh")):
        return name + "es"
    if name.endswith("leaf"):
        return name[:-4] + "leaves"
    return name + "s"


def _article(words: str) -> str:
    sounds_like_a_vowel = (words[0].lower() in "aeiou" and not words.startswith(("uni", "one"))) or words.startswith("hour")
    return "an" if sounds_like_a_vowel else "a"
