"""How the catalogue of errors grows."""

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
