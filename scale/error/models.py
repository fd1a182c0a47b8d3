"""The catalogue of named failures."""

from django.db import models
from django.db.models import Q


class Error(models.Model):
    """A failure with a name, a culprit and a retry rule (reference: seed 002, error details)."""

    class Category(models.TextChoices):
        SYSTEM = "SYSTEM"
        ALGORITHM = "ALGORITHM"
        DATA = "DATA"

    name = models.CharField(max_length=50, unique=True)
    title = models.CharField(max_length=50, null=True)  # noqa: DJ001 - null in the contract
    description = models.CharField(max_length=250, null=True)  # noqa: DJ001 - null in the contract
    category = models.CharField(
        max_length=50, choices=Category.choices, default=Category.SYSTEM.value, db_index=True
    )
    is_builtin = models.BooleanField(default=False)
    should_be_retried = models.BooleanField(default=False)
    created = models.DateTimeField(auto_now_add=True)
    last_modified = models.DateTimeField(auto_now=True)

    class Meta:
        db_table = "error"
        constraints = [
            models.CheckConstraint(
                name="error_category_known",
                condition=Q(category__in=["SYSTEM", "ALGORITHM", "DATA"]),
            ),
            models.CheckConstraint(name="error_name_not_empty", condition=~Q(name="")),
        ]

    def __str__(self) -> str:
        return self.name
