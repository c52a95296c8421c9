"""What the index is asked, as data; each database turns it into its own language."""

from dataclasses import dataclass, replace

from visionsuit.search.words import TITLE


@dataclass(frozen=True, slots=True)
class Term:
    """Words that follow each other; with `prefix` the last one may go on."""

    words: tuple[str, ...]
    prefix: bool = False


@dataclass(frozen=True, slots=True)
class Match:
    """Rows with every term, one token of each group in `any_of`, and nothing of `none_of` and `not_all`."""

    terms: tuple[Term, ...] = ()
    any_of: tuple[tuple[str, ...], ...] = ()
    none_of: tuple[Term, ...] = ()
    #: Rows that have all of these are left out: what an earlier tier has shown.
    not_all: tuple[Term, ...] = ()

    @property
    def has_prefix(self) -> bool:
        return any(term.prefix for term in self.terms)

    def exact(self) -> "Match":
        """The same, with whole words only."""
        return replace(self, terms=tuple(replace(term, prefix=False) for term in self.terms))

    def in_title(self) -> "Match":
        """Those of the matches that have every word in the title too."""
        return replace(self, terms=self.terms + self._title_terms())

    def not_in_title(self) -> "Match":
        """All other matches."""
        return replace(self, not_all=self._title_terms())

    def _title_terms(self) -> tuple[Term, ...]:
        return tuple(
            Term((TITLE + word,), term.prefix and last)
            for term in self.terms
            for word, last in zip(term.words, [False] * (len(term.words) - 1) + [True], strict=True)
        )
