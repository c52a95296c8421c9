"""E-mail address, display name, bio: what is accepted, and the one form in which each is stored."""

from email_validator import EmailNotValidError, validate_email

from visionsuit.core.errors import InvalidInput
from visionsuit.core.text import clean_line, clean_text

NAME_MIN_CHARACTERS = 2
NAME_MAX_CHARACTERS = 160
BIO_MAX_CHARACTERS = 600
#: Domains of home networks: fine on a server of one's own, refused by a validator that thinks of the internet.
_HOME_DOMAINS = ("localhost", "local")


class BadEmail(InvalidInput):
    code = "bad_email"


class BadText(InvalidInput):
    code = "bad_text"


def clean_email(email: str) -> str:
    """The address in lower case, so that one mailbox is one account. Looks nothing up.

    Raises:
        BadEmail
    """
    text = email.strip()
    suffix = ".example.org" if text.lower().rpartition("@")[2].split(".")[-1] in _HOME_DOMAINS else ""
    try:
        checked = validate_email(
            text + suffix, check_deliverability=False, test_environment=True, globally_deliverable=False
        )
    except EmailNotValidError as error:
        raise BadEmail(f"This is not an e-mail address: {error}", field="email") from error
    return checked.normalized.removesuffix(suffix).lower()


def email_key(email: str) -> str:
    """`clean_email` that takes anything: for looking up and counting attempts with an address that may be none."""
    try:
        return clean_email(email)
    except BadEmail:
        return email.strip().lower()


def clean_name(name: str) -> str:
    """Display name on one line.

    Raises:
        BadText
    """
    return one_line(name, NAME_MIN_CHARACTERS, NAME_MAX_CHARACTERS, "name", "A display name")


def one_line(text: str, shortest: int, longest: int, field: str, what: str) -> str:
    """`text` as one line without control characters.

    Raises:
        BadText: shorter than `shortest` or longer than `longest` characters.
    """
    line = clean_line(text)
    if not shortest <= len(line) <= longest:
        raise BadText(f"{what} has {shortest} to {longest} characters; this one has {len(line)}.", field=field)
    return line


def clean_bio(bio: str) -> str:
    """A few lines about oneself.

    Raises:
        BadText
    """
    text = clean_text(bio)
    if len(text) > BIO_MAX_CHARACTERS:
        message = f"A bio has at most {BIO_MAX_CHARACTERS} characters; this one has {len(text)}."
        raise BadText(message, field="bio")
    return text
