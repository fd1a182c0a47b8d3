"""`scale user`: who may do what, without the admin site."""

import secrets
import sys

from scale.cli.commands.manage import use_settings


def run(name: str, *, role: str, is_staff: bool, wants_token: bool, wants_password: bool) -> None:
    """Make the user unless it is there, give it the role and nothing above; print its secrets.

    Who is above all roles, as the user of the first start, stays so only as an admin.
    """
    use_settings()
    import django

    django.setup()
    from django.contrib.auth.models import Group, User
    from django.db import transaction
    from knox.models import get_token_model

    from scale.api.permissions import Role

    if role not in set(Role):
        sys.exit(f"There is no role {role!r}; there are {', '.join(Role)}.")
    with transaction.atomic():
        user = User.objects.filter(username=name).first() or User.objects.create_user(name)
        user.groups.remove(*Group.objects.filter(name__in=set(Role)))
        user.groups.add(Group.objects.get(name=role))
        password = secrets.token_urlsafe(12) if wants_password else ""
        if password:
            user.set_password(password)
        user.user_permissions.clear()
        user.is_superuser = user.is_superuser and role == Role.ADMIN
        user.is_staff = user.is_staff or is_staff
        user.save()
        token = get_token_model().objects.create(user=user, expiry=None)[1] if wants_token else ""
    print(f"{name} is {role}")
    for what, secret in (("password", password), ("token", token)):
        if secret:
            print(f"{what}: {secret}")
