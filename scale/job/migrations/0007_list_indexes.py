"""Indexes for lists; those of foreign keys that another index serves as well go."""

import django.db.models.deletion
from django.contrib.postgres.operations import AddIndexConcurrently, RemoveIndexConcurrently
from django.db import migrations, models
from django.db.models import F, Q

_NEW = (
    "execution_by_type", "execution_on_node", "execution_by_error", "execution_stopping_error",
    "job_by_type", "job_by_error", "job_by_change_of_status", "file_by_created",
)
_PROTECT = django.db.models.deletion.PROTECT


def _key(to, **options):
    return models.ForeignKey(to=to, on_delete=_PROTECT, db_index=False, **options)


def _without_index(model, name, table, index, key):
    """Drop the index of a foreign key; altering the field would check every row's key again."""
    return migrations.SeparateDatabaseAndState(
        [
            migrations.RunSQL(
                f"DROP INDEX CONCURRENTLY IF EXISTS {index}",
                f"CREATE INDEX CONCURRENTLY {index} ON {table} ({name}_id)",
            )
        ],
        [migrations.AlterField(model, name, key)],
    )


class Migration(migrations.Migration):
    # The tables can be large; indexes are built beside the work.
    atomic = False
    dependencies = [("job", "0006_tallies")]
    operations = [
        # Who was killed in it begins again, and finds what was made, perhaps half.
        migrations.RunSQL(
            [f"DROP INDEX CONCURRENTLY IF EXISTS {name}" for name in _NEW], migrations.RunSQL.noop
        ),
        AddIndexConcurrently(
            "jobexecution",
            models.Index(F("job_type"), F("last_modified"), F("id"), include=["status"], name="execution_by_type"),
        ),
        RemoveIndexConcurrently("jobexecution", "execution_by_job_type"),
        AddIndexConcurrently(
            "jobexecution",
            models.Index(F("node"), F("last_modified"), F("id"), include=["status"], name="execution_on_node"),
        ),
        RemoveIndexConcurrently("jobexecution", "execution_by_node"),
        AddIndexConcurrently(
            "jobexecution",
            models.Index(
                F("error"), F("last_modified"), F("id"),
                condition=Q(("error__isnull", False)), name="execution_by_error",
            ),
        ),
        AddIndexConcurrently(
            "jobexecution",
            models.Index(
                F("stopping_error"), condition=Q(("stopping_error__isnull", False)), name="execution_stopping_error"
            ),
        ),
        AddIndexConcurrently(
            "job",
            models.Index(F("job_type"), F("last_modified"), F("id"), include=["status"], name="job_by_type"),
        ),
        AddIndexConcurrently(
            "job",
            models.Index(
                F("error"), F("last_modified"), F("id"), condition=Q(("error__isnull", False)), name="job_by_error"
            ),
        ),
        AddIndexConcurrently(
            "job",
            models.Index(
                F("last_status_change"), F("id"),
                include=["status", "job_type", "error"], name="job_by_change_of_status",
            ),
        ),
        RemoveIndexConcurrently("job", "job_by_status_change"),
        AddIndexConcurrently("file", models.Index(F("created"), F("id"), name="file_by_created")),
        _without_index("job", "job_type", "job", "job_job_type_id_56326875", _key("job.jobtype")),
        _without_index(
            "job", "job_type_rev", "job", "job_job_type_rev_id_cc0dd341", _key("job.jobtyperevision")
        ),
        _without_index("job", "error", "job", "job_error_id_399b2923", _key("error.error", null=True)),
        _without_index(
            "jobexecution", "job", "job_execution", "job_execution_job_id_1e17a7ed",
            _key("job.job", related_name="executions"),
        ),
        _without_index(
            "jobexecution", "job_type", "job_execution", "job_execution_job_type_id_39cc6419", _key("job.jobtype")
        ),
        _without_index(
            "jobexecution", "node", "job_execution", "job_execution_node_id_2348fd5c", _key("node.node", null=True)
        ),
        _without_index(
            "jobexecution", "error", "job_execution", "job_execution_error_id_08b330b8", _key("error.error", null=True)
        ),
        _without_index(
            "jobexecution", "stopping_error", "job_execution", "job_execution_stopping_error_id_4f935f26",
            _key("error.error", null=True, related_name="+"),
        ),
        _without_index(
            "executionevent", "execution", "execution_event", "execution_event_execution_id_165a39ec",
            _key("job.jobexecution", related_name="history"),
        ),
        _without_index(
            "file", "execution", "file", "file_execution_id_202d500e",
            _key("job.jobexecution", null=True, related_name="files"),
        ),
        _without_index(
            "archivedlog", "execution", "archived_log", "archived_log_execution_id_a168e709",
            _key("job.jobexecution", related_name="logs"),
        ),
    ]
