"""Kept counts: triggers note each change of how many rows there are of a kind.

Statement-level triggers append what changed; nothing is locked, so writers never wait for each
other here. Creating them locks the two tables against writers until the counts are filled in.
"""

from django.db import migrations, models

# What is counted of a row, and for which scope; the numbers are those of `tallies.Scope`.
_EXECUTION = (
    "status, job_type_id, node_id, error_id,"
    " floor(extract(epoch FROM last_modified) / 3600)::bigint AS modified_hour"
)
_EXECUTION_SCOPES = (("job_type_id", 1), ("node_id", 2), ("error_id", 3), ("modified_hour", 4))
_JOB = (
    "status, job_type_id, error_id,"
    " floor(extract(epoch FROM last_modified) / 3600)::bigint AS modified_hour,"
    " floor(extract(epoch FROM last_status_change) / 3600)::bigint AS status_hour"
)
_JOB_SCOPES = (("job_type_id", 5), ("error_id", 6), ("modified_hour", 7), ("status_hour", 8))


def _counted(scopes, rows):
    """Return a query of scope, key, status and count over rows that each count `n`."""
    columns = [column for column, _ in scopes]
    whens = " ".join(f"WHEN grouping({column}) = 0 THEN {scope}" for column, scope in scopes)
    sets = ", ".join(f"({column}, status)" for column in columns)
    # Of the columns that are not grouped by, all are null.
    key = f"coalesce({', '.join(columns)})"
    return f"""
        SELECT (CASE {whens} END)::smallint, {key}::bigint, status, sum(n)::bigint
        FROM ({rows}) AS changes
        GROUP BY GROUPING SETS ({sets})
        HAVING sum(n) <> 0 AND {key} IS NOT NULL
    """


def _triggers(table, columns, scopes):
    """Return the SQL that makes the triggers of one table, and the SQL that removes them."""
    new = f"SELECT {columns}, 1 AS n FROM new_rows"
    old = f"SELECT {columns}, -1 AS n FROM old_rows"
    events = {
        "insert": (new, "NEW TABLE AS new_rows"),
        "delete": (old, "OLD TABLE AS old_rows"),
        "update": (f"{new} UNION ALL {old}", "OLD TABLE AS old_rows NEW TABLE AS new_rows"),
    }
    make, remove = "", ""
    for event, (rows, tables) in events.items():
        name = f"tally_{table}_{event}"
        make += f"""
            CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                INSERT INTO tally (scope, key, status, count) {_counted(scopes, rows)};
                RETURN NULL;
            END $$;
            CREATE TRIGGER {name} AFTER {event} ON {table} REFERENCING {tables}
                FOR EACH STATEMENT EXECUTE FUNCTION {name}();
        """
        remove += f"DROP TRIGGER {name} ON {table}; DROP FUNCTION {name}();"
    name = f"tally_{table}_truncate"
    make += f"""
        CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            -- Not deleted: what a fold makes of them just now would stay.
            INSERT INTO tally (scope, key, status, count)
            SELECT scope, key, status, -sum(count) FROM tally
            WHERE scope IN ({", ".join(str(scope) for _, scope in scopes)})
            GROUP BY scope, key, status HAVING sum(count) <> 0;
            RETURN NULL;
        END $$;
        CREATE TRIGGER {name} AFTER TRUNCATE ON {table}
            FOR EACH STATEMENT EXECUTE FUNCTION {name}();
    """
    remove += f"DROP TRIGGER {name} ON {table}; DROP FUNCTION {name}();"
    return make, remove


_TRUTH = f"""
    CREATE FUNCTION tally_truth()
        RETURNS TABLE (scope smallint, key bigint, status varchar, count bigint)
        LANGUAGE sql STABLE AS $$
            {_counted(_EXECUTION_SCOPES, f"SELECT {_EXECUTION}, 1 AS n FROM job_execution")}
            UNION ALL
            {_counted(_JOB_SCOPES, f"SELECT {_JOB}, 1 AS n FROM job")}
        $$;
"""
_EXECUTION_TRIGGERS = _triggers("job_execution", _EXECUTION, _EXECUTION_SCOPES)
_JOB_TRIGGERS = _triggers("job", _JOB, _JOB_SCOPES)


class Migration(migrations.Migration):
    dependencies = [("job", "0005_framework_of_tasks")]
    operations = [
        migrations.CreateModel(
            "Tally",
            [
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "scope",
                    models.SmallIntegerField(
                        choices=[
                            (1, "Execution Job Type"),
                            (2, "Execution Node"),
                            (3, "Execution Error"),
                            (4, "Execution Hour"),
                            (5, "Job Job Type"),
                            (6, "Job Error"),
                            (7, "Job Hour"),
                            (8, "Job Status Hour"),
                        ]
                    ),
                ),
                ("key", models.BigIntegerField()),
                ("status", models.CharField(max_length=50)),
                ("count", models.BigIntegerField()),
                ("is_sum", models.BooleanField(db_default=False)),
            ],
            options={"db_table": "tally"},
        ),
        migrations.AddIndex(
            "tally",
            models.Index(
                models.F("scope"), models.F("key"), models.F("status"), models.F("is_sum"),
                include=["count"], name="tally_by_key",
            ),
        ),
        # It lives on being vacuumed: every row is deleted a few seconds after it came.
        migrations.RunSQL(
            "ALTER TABLE tally SET (autovacuum_vacuum_scale_factor = 0,"
            " autovacuum_vacuum_threshold = 10000)",
            migrations.RunSQL.noop,
        ),
        migrations.RunSQL(*_EXECUTION_TRIGGERS),
        migrations.RunSQL(*_JOB_TRIGGERS),
        migrations.RunSQL(_TRUTH, "DROP FUNCTION tally_truth()"),
        migrations.RunSQL(
            "INSERT INTO tally (scope, key, status, count, is_sum)"
            " SELECT scope, key, status, count, true FROM tally_truth()",
            migrations.RunSQL.noop,
        ),
    ]
