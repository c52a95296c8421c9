"""A vocabulary of eight, the first of them held out in one style or the other."""

THINGS = ["fox", "rocket", "pizza", "panda", "car", "house", "crown", "frog"]
#: Emoji of the things, in their order.
SIGNS = "🦊🚀🍕🐼🚗🏠👑🐸"
