"""How the catalogue of errors grows and changes."""

from dataclasses import dataclass

from django.db import IntegrityError, transaction

from scale.core.errors import InvalidInput, NotAllowedNow
from scale.error.models import Error


def create_error(
    *, name: str, title: str, description: str, category: str, should_be_retried: bool = False
) -> Error:
    """Store an error that job types can name.

    Raises:
        InvalidInput: SYSTEM is for our own errors.
        NotAllowedNow: the name is taken.
        Nothing is written then.
    """
    if category not in {Error.Category.ALGORITHM, Error.Category.DATA}:
        raise InvalidInput("category", "must be ALGORITHM or DATA")
    try:
        with transaction.atomic():
            return Error.objects.create(
                name=name,
                title=title,
                description=description,
                category=category,
                should_be_retried=should_be_retried,
            )
    except IntegrityError:
        if Error.objects.filter(name=name).exists():
            raise NotAllowedNow(f"error {name} exists already") from None
        raise


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorChange:
    """What to change; None or an empty text leaves it as it is."""

    title: str | None = None
    description: str | None = None
    category: str | None = None
    should_be_retried: bool | None = None


@transaction.atomic
def change_error(error_id: int, change: ErrorChange) -> Error:
    """Change an error that is not one of the system's.

    Raises:
        Error.DoesNotExist: no such error.
        InvalidInput: it is a SYSTEM error, or would become one; nothing was written.
    """
    error = Error.objects.select_for_update(no_key=True).get(pk=error_id)
    if Error.Category.SYSTEM in {error.category, change.category}:
        raise InvalidInput("category", "errors of the category SYSTEM are not for others to make")
    error.title = change.title or error.title
    error.description = change.description or error.description
    error.category = change.category or error.category
    if change.should_be_retried is not None:
        error.should_be_retried = change.should_be_retried
    error.save(
        update_fields=["title", "description", "category", "should_be_retried", "last_modified"]
    )
    return error
