"""What the blocks of the first tabletop show, and how people ask for them."""

from __future__ import annotations

# Names of the vocabulary (`ornstein.assets.openmoji`) that stay recognisable at sixteen pixels: distinct in colour and shape.
SEEN_OBJECTS: tuple[str, ...] = (
    "red apple",
    "banana",
    "strawberry",
    "grapes",
    "watermelon",
    "broccoli",
    "carrot",
    "mushroom",
    "pizza",
    "hamburger",
    "doughnut",
    "cheese",
    "panda",
    "frog",
    "tiger face",
    "pig face",
    "octopus",
    "crab",
    "ladybug",
    "butterfly",
    "rocket",
    "star",
    "sunflower",
    "rainbow",
    "soccer ball",
    "basketball",
    "red heart",
    "blue heart",
    "bomb",
    "key",
    "gift",
    "trophy",
)

TRAIN_PHRASINGS: tuple[str, ...] = (
    "pick up the {name}",
    "grab the {name}",
    "lift the {name}",
    "take the {name}",
    "please pick up the {name}",
    "get the {name}",
    "raise the {name}",
    "pick the {name} up from the table",
)
# Never in training data: for testing new wordings.
HELD_OUT_PHRASINGS: tuple[str, ...] = (
    "could you hand me the {name}",
    "I would like the {name}, please",
)
