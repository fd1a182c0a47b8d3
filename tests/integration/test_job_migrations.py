"""Migrations that are no transaction: whoever is killed in one can go on."""

import pytest
from django.apps import apps
from django.db import connection
from django.db.migrations import Migration
from django.db.migrations.loader import MigrationLoader


def in_pieces(loader: MigrationLoader) -> list[Migration]:
    ours = {app.label for app in apps.get_app_configs() if app.name.startswith("scale.")}
    known = (loader.disk_migrations[key] for key in sorted(loader.disk_migrations))
    return [each for each in known if each.app_label in ours and not each.atomic]


def indexes() -> set[tuple[str, bool]]:
    """Return the definition of each index, and whether it is in use."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_get_indexdef(indexrelid), indisvalid FROM pg_index"
            " JOIN pg_class ON oid = indrelid WHERE relnamespace = 'public'::regnamespace"
        )
        return set(cursor.fetchall())


@pytest.mark.django_db(transaction=True)
def test_a_migration_that_was_killed_before_it_was_noted_is_done_again() -> None:
    before = indexes()
    loader = MigrationLoader(connection)
    found = in_pieces(loader)
    assert {each.name for each in found} >= {"0003_job_indexes", "0007_list_indexes"}
    for migration in found:
        state = loader.project_state((migration.app_label, migration.name), at_end=False)
        with connection.schema_editor(atomic=False) as editor:
            migration.apply(state, editor)
    assert indexes() == before
