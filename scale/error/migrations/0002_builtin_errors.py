"""The built-in errors (docs/errors.md); names are the contract, texts may be improved."""

from django.db import migrations

SYSTEM, ALGORITHM, DATA = "SYSTEM", "ALGORITHM", "DATA"

# name, title, category, should be retried, description
BUILTIN = [
    ("unknown", "Unknown", SYSTEM, True, "The reason of the failure is not known."),
    ("database", "Database", SYSTEM, True, "The database could not be reached."),
    ("database-operation", "Database operation", SYSTEM, True, "The database refused an operation."),
    ("filesystem-io", "File system", SYSTEM, True, "Reading or writing files failed on the node."),
    ("nfs", "Network file system", SYSTEM, True, "A network file system failed on the node."),
    ("task-launch", "Launch", SYSTEM, True, "The task could not be started on its node."),
    ("docker-task-launch", "Container launch", SYSTEM, True, "The container could not be started."),
    ("docker-terminated", "Container ended", SYSTEM, True, "The container was ended from outside."),
    ("node-lost", "Node lost", SYSTEM, True, "The node went away while the task was on it."),
    ("scheduler-lost", "Scheduler lost", SYSTEM, True, "The scheduler lost sight of the task."),
    ("mesos-lost", "Lost by Mesos", SYSTEM, True, "Mesos lost the task."),
    ("launch-timeout", "Launch took too long", SYSTEM, True, "The task was sent but never started."),
    ("pull-timeout", "Fetching took too long", SYSTEM, True, "The image was not fetched in time."),
    ("pre-timeout", "Pre phase took too long", SYSTEM, True, "The inputs did not arrive in time."),
    ("post-timeout", "Post phase took too long", SYSTEM, True, "The outputs were not stored in time."),
    ("system-timeout", "System task took too long", SYSTEM, True, "A task of the system took too long."),
    ("resource-starvation", "Waited too long", SYSTEM, True,
     "The next phase got no resources on its node in time."),
    ("pull", "Input not fetched", SYSTEM, True, "An input could not be fetched whole and unchanged."),
    ("api-unreachable", "Scale not reachable", SYSTEM, True,
     "The node could not reach the REST interface for its orders or outputs."),
    ("missing-setting", "Missing setting", SYSTEM, False, "A setting that the job type needs is missing."),
    ("missing-mount", "Missing mount", SYSTEM, False, "A mount that the job type needs is missing."),
    ("deleted-file", "Deleted file", SYSTEM, False, "An input was deleted from storage."),
    ("missing-file", "Missing file", SYSTEM, False, "An input does not exist at its address."),
    ("forbidden-input", "Forbidden input", DATA, False,
     "The address of an input is not one that jobs may read from."),
    ("timeout", "Timeout", ALGORITHM, False, "The job ran longer than its timeout allows."),
    ("algorithm-unknown", "Algorithm failed", ALGORITHM, False,
     "The command ended with an exit code that its error mapping does not name."),
    ("memory-limit", "Out of memory", ALGORITHM, False, "The job used more memory than it asked for."),
    ("disk-limit", "Out of disk", ALGORITHM, False, "The job used more disk than it asked for."),
    ("invalid-results-manifest", "Invalid results manifest", ALGORITHM, False,
     "The results manifest, or a file that it names, cannot be used."),
    ("missing-required-output", "Missing output", ALGORITHM, False,
     "The job did not make an output that its interface requires."),
    ("unexpected-multiple-outputs", "Too many outputs", ALGORITHM, False,
     "Several files were made for an output that takes one."),
]


def add(apps, schema_editor):
    Error = apps.get_model("error", "Error")
    for name, title, category, should_be_retried, description in BUILTIN:
        Error.objects.update_or_create(
            name=name,
            defaults={
                "title": title,
                "category": category,
                "should_be_retried": should_be_retried,
                "description": description,
                "is_builtin": True,
            },
        )


def remove(apps, schema_editor):
    apps.get_model("error", "Error").objects.filter(is_builtin=True).delete()


class Migration(migrations.Migration):
    dependencies = [("error", "0001_initial")]
    operations = [migrations.RunPython(add, remove)]
