"""The index in PostgreSQL: one table a kind with a tsvector under a GIN index, id = asset id.

Vectors and queries are written out here, word by word, so no text search configuration of the server plays a part.
"""

from collections import defaultdict

from visionsuit.search.match import Match, Term

#: What a tsvector can hold.
_MAX_POSITION = 16383
_MAX_POSITIONS = 255


def create_sql(table: str) -> list[str]:
    return [
        f"CREATE TABLE IF NOT EXISTS {table} (id BIGINT PRIMARY KEY, words TSVECTOR NOT NULL, tags TEXT NOT NULL)",
        f"CREATE INDEX IF NOT EXISTS ix_{table}_words ON {table} USING GIN (words)",
    ]


def drop_sql(table: str) -> list[str]:
    return [f"DROP TABLE IF EXISTS {table}"]


def insert_sql(table: str) -> str:
    return f"INSERT INTO {table} (id, words, tags) VALUES (:id, CAST(:words AS tsvector), :tags)"


def condition(table: str) -> str:
    return "words @@ CAST(:match AS tsquery)"


#: Column that holds the asset's id.
KEY = "id"


def vector(words: str) -> str:
    """Index text -> tsvector literal: 'red':1,7 'fox':2 ..."""
    places: dict[str, list[int]] = defaultdict(list)
    for position, word in enumerate(words.split(" "), start=1):
        if word and position <= _MAX_POSITION and len(places[word]) < _MAX_POSITIONS:
            places[word].append(position)
    return " ".join(f"'{word}':{','.join(map(str, where))}" for word, where in places.items())


def expression(match: Match) -> str:
    """Match -> tsquery. Words hold letters and digits only, so nothing in quotes can end them."""
    wanted = [_phrase(term) for term in match.terms]
    for group in match.any_of:
        wanted.append("(" + " | ".join(f"'{token}'" for token in group) + ")")
    for term in match.none_of:
        wanted.append("!" + _phrase(term))
    if match.not_all:
        wanted.append("!(" + " & ".join(_phrase(term) for term in match.not_all) + ")")
    return " & ".join(wanted)


def _phrase(term: Term) -> str:
    parts = [f"'{word}'" for word in term.words]
    if term.prefix:
        parts[-1] += ":*"
    return "(" + " <-> ".join(parts) + ")"
