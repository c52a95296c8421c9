"""The index in SQLite: one FTS5 table a kind, rowid = asset id.

The tokenizer only splits at spaces: `words` has done everything else. The text is kept (no contentless table): taking
a row out of a contentless index needs SQLite 3.43.
"""

from visionsuit.search.match import Match, Term


def create_sql(table: str) -> list[str]:
    return [
        f"CREATE VIRTUAL TABLE IF NOT EXISTS {table} USING fts5("
        "words, tags UNINDEXED, tokenize = 'ascii', prefix = '2 3 4 5 6 7', columnsize = 0)"
    ]


def drop_sql(table: str) -> list[str]:
    return [f"DROP TABLE IF EXISTS {table}"]


def insert_sql(table: str) -> str:
    return f"INSERT INTO {table} (rowid, words, tags) VALUES (:id, :words, :tags)"


def condition(table: str) -> str:
    return f"{table} MATCH :match"


#: Column that holds the asset's id.
KEY = "rowid"


def vector(words: str) -> str:
    return words


def expression(match: Match) -> str:
    """Match -> FTS5 query. Words hold letters and digits only, so nothing in quotes can end them."""
    wanted = [_phrase(term) for term in match.terms]
    for group in match.any_of:
        wanted.append("(" + " OR ".join(f'"{token}"' for token in group) + ")")
    query = "(" + " AND ".join(wanted) + ")"
    unwanted = [_phrase(term) for term in match.none_of]
    if match.not_all:
        unwanted.append("(" + " AND ".join(_phrase(term) for term in match.not_all) + ")")
    return f"{query} NOT ({' OR '.join(unwanted)})" if unwanted else query


def _phrase(term: Term) -> str:
    return f'"{" ".join(term.words)}"' + (" *" if term.prefix else "")
