"""Users as Django has them, with what they may do in one query instead of two."""

from typing import Any

from django.contrib.auth.backends import ModelBackend
from django.db import connection
from django.db.models import Model

from scale.job.rows import execute_prepared


class Accounts(ModelBackend):
    """Reads all permissions of a user once for each request, by a statement of our own.

    Every request but a superuser's needs them, and Django's two cost more than most answers.
    """

    def get_all_permissions(self, user_obj: Any, obj: Model | None = None) -> set[str]:
        if not user_obj.is_active or user_obj.is_anonymous or user_obj.is_superuser or obj:
            return super().get_all_permissions(user_obj, obj)
        if not hasattr(user_obj, "_perm_cache"):  # where ModelBackend keeps them
            user_obj._perm_cache = _permissions_of(user_obj.pk)
        cached: set[str] = user_obj._perm_cache
        return cached


def _permissions_of(user_id: int) -> set[str]:
    with connection.cursor() as cursor:
        execute_prepared(cursor, _STATEMENT, [user_id])
        return {f"{app}.{codename}" for app, codename in cursor.fetchall()}


_STATEMENT = """
    SELECT kind.app_label, permission.codename
    FROM auth_permission AS permission
    JOIN django_content_type AS kind ON kind.id = permission.content_type_id
    WHERE permission.id IN (
        SELECT permission_id FROM auth_user_user_permissions WHERE user_id = $1
        UNION ALL
        SELECT of_group.permission_id FROM auth_group_permissions AS of_group
        JOIN auth_user_groups AS member USING (group_id) WHERE member.user_id = $1
    )
"""
