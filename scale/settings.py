"""Every setting; what differs between installations comes from the environment.

`docs/settings.md` is the table for operators.
"""

import sys
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path
from urllib.parse import urlsplit

from scale.env import (
    Environment,
    boolean,
    database_url,
    integer,
    mesos_master,
    number,
    one_of,
    url,
    words,
)
from scale.failpoints import read_fail_point
from scale.log import logging_settings

env = Environment()

# Web. SCALE_API_URL is how agents reach this installation; http URLs have no last slash.
SECRET_KEY = env("SCALE_SECRET_KEY", str)
DEBUG = env("SCALE_DEBUG", boolean, False)
ALLOWED_HOSTS = env("SCALE_ALLOWED_HOSTS", words, ["localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS = env("SCALE_TRUSTED_ORIGINS", words, [])
SCALE_API_URL = env("SCALE_API_URL", url("http", "https"), "http://127.0.0.1:8000")
SCALE_ANONYMOUS_READ = env("SCALE_ANONYMOUS_READ", boolean, False)
SCALE_MAX_UPLOAD_MIB = env("SCALE_MAX_UPLOAD_MIB", integer(least=1, most=10_000_000), 10_240)

# Where state lives.
DATABASES = {"default": env("DATABASE_URL", database_url)}
SCALE_BROKER_URL = env(
    "SCALE_BROKER_URL", url("redis", "rediss", "redis+socket", "amqp", "amqps"), ""
)
SCALE_STORAGE_DIR = env("SCALE_STORAGE_DIR", Path, Path.home() / ".local/share/scale/files")

# The cluster. A failover time-out of weeks, because its end kills every task.
SCALE_MESOS_MASTER = env("SCALE_MESOS_MASTER", mesos_master, "")
SCALE_MESOS_PRINCIPAL = env("SCALE_MESOS_PRINCIPAL", str, "")
SCALE_MESOS_SECRET = env("SCALE_MESOS_SECRET", str, "")
SCALE_FRAMEWORK_NAME = env("SCALE_FRAMEWORK_NAME", str, "scale")
SCALE_FRAMEWORK_USER = env("SCALE_FRAMEWORK_USER", str, "")
SCALE_FRAMEWORK_ROLE = env("SCALE_FRAMEWORK_ROLE", str, "*")
SCALE_FAILOVER_TIMEOUT_S = env(
    "SCALE_FAILOVER_TIMEOUT_S", number(least=60, most=31_536_000), 1_814_400.0
)

# On the agents.
SCALE_AGENT_WORK_DIR = env("SCALE_AGENT_WORK_DIR", Path, Path("/var/lib/scale/work"))
SCALE_AGENT_PYTHON = env("SCALE_AGENT_PYTHON", str, "python3")
SCALE_AGENT_FILE_ROOTS = env("SCALE_AGENT_FILE_ROOTS", words, [])
SCALE_AGENT_FORBIDDEN_NETWORKS = env(
    "SCALE_AGENT_FORBIDDEN_NETWORKS",
    words,
    # Where clouds keep credentials: link-local, and what AWS, Google and Alibaba have besides.
    ["169.254.0.0/16", "fe80::/10", "fd00:ec2::254/128", "fd20:ce::254/128", "100.100.100.200/32"],
)
SCALE_MAX_OUTPUT_MIB = env("SCALE_MAX_OUTPUT_MIB", integer(least=1, most=100_000_000), 102_400)

# The scheduler's times, in seconds.
SCALE_OFFER_HOLD_S = env("SCALE_OFFER_HOLD_S", number(least=0, most=300), 5.0)
SCALE_DECLINE_S = env("SCALE_DECLINE_S", number(least=1, most=86_400), 3600.0)
SCALE_STAGING_TIMEOUT_S = env("SCALE_STAGING_TIMEOUT_S", number(least=1, most=86_400), 300.0)
SCALE_STEPS_TIMEOUT_S = env("SCALE_STEPS_TIMEOUT_S", number(least=1, most=604_800), 3600.0)
SCALE_HOLD_TIMEOUT_S = env("SCALE_HOLD_TIMEOUT_S", number(least=1, most=604_800), 3600.0)
SCALE_UNREACHABLE_GRACE_S = env("SCALE_UNREACHABLE_GRACE_S", number(least=0, most=86_400), 60.0)
SCALE_KILL_GRACE_S = env("SCALE_KILL_GRACE_S", number(least=0, most=3600), 5.0)
SCALE_LEASE_S = env("SCALE_LEASE_S", number(least=10, most=3600), 15.0)

# What the worker measures for /load/ and /metrics/, and for how long that is kept.
SCALE_LOAD_PERIOD_S = env("SCALE_LOAD_PERIOD_S", integer(least=10, most=3600), 60)
SCALE_METRICS_KEPT_DAYS = env("SCALE_METRICS_KEPT_DAYS", integer(least=32, most=3660), 400)

# For tests of crashes: where the process is to kill itself.
SCALE_TESTING = env("SCALE_TESTING", boolean, False)
SCALE_FAIL_POINT = env("SCALE_FAIL_POINT", read_fail_point, None)

_log_format = env("SCALE_LOG_FORMAT", one_of("console", "json"), "console")
_log_level = env("SCALE_LOG_LEVEL", one_of("DEBUG", "INFO", "WARNING", "ERROR"), "INFO")

if bool(SCALE_MESOS_PRINCIPAL) != bool(SCALE_MESOS_SECRET):
    env.refuse("SCALE_MESOS_SECRET", "SCALE_MESOS_PRINCIPAL and SCALE_MESOS_SECRET go together")
if not SCALE_AGENT_WORK_DIR.is_absolute() or Path("/") == SCALE_AGENT_WORK_DIR:
    env.refuse("SCALE_AGENT_WORK_DIR", "must be an absolute path below /")
if any(not root.startswith("/") for root in SCALE_AGENT_FILE_ROOTS):
    env.refuse("SCALE_AGENT_FILE_ROOTS", "must be absolute paths")
for _network in SCALE_AGENT_FORBIDDEN_NETWORKS:
    try:
        ip_network(_network)
    except ValueError as _error:
        env.refuse("SCALE_AGENT_FORBIDDEN_NETWORKS", str(_error))
# Whoever guesses the key makes sessions and agents' tokens. Django's check wants as much (W009).
if SCALE_API_URL.startswith("https://") and (len(SECRET_KEY) < 50 or len(set(SECRET_KEY)) < 5):
    env.refuse("SCALE_SECRET_KEY", "must have at least 50 characters, and random ones")
# It is in command lines, where every user of an agent sees it.
if "@" in urlsplit(SCALE_API_URL).netloc:
    env.refuse("SCALE_API_URL", "must not hold a user name or password")
if SCALE_FAIL_POINT and not SCALE_TESTING:
    env.refuse("SCALE_FAIL_POINT", "kills the process, and is for tests only: SCALE_TESTING=true")
env.check()

# A session that hangs in a transaction holds locks, on which the next leader would wait; the server
# ends it. So a scheduler that is stopped at a bad moment is replaced within this time.
_given_options = dict(DATABASES["default"].get("OPTIONS") or {})  # type: ignore[call-overload]
_hang_ends = "-c idle_in_transaction_session_timeout=10s"
DATABASES["default"] |= {
    "CONN_MAX_AGE": 600,
    "CONN_HEALTH_CHECKS": True,
    "DISABLE_SERVER_SIDE_CURSORS": True,
    "OPTIONS": {
        **_given_options,
        "options": f"{_hang_ends} {_given_options.get('options', '')}".strip(),
    },
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    "unfold",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "knox",
    "axes",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "scale.error",
    "scale.node",
    "scale.job",
    "scale.queue",
    "scale.scheduler",
    "scale.api",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "axes.middleware.AxesMiddleware",
]
ROOT_URLCONF = "scale.urls"
ASGI_APPLICATION = "scale.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",  # asked first: it refuses who guesses
    "scale.api.accounts.Accounts",
]
# A name is locked for a minute after five wrong passwords: 7,200 guesses a day. By the name alone,
# because addresses are many, and behind a proxy one; a lock does not touch sessions and tokens.
AXES_LOCKOUT_PARAMETERS = ["username"]
AXES_FAILURE_LIMIT = 5
AXES_COOLOFF_TIME = timedelta(minutes=1)
AXES_RESET_ON_SUCCESS = True
# Else whoever goes on guessing would lock the owner out for ever.
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False
AXES_DISABLE_ACCESS_LOG = True
AXES_VERBOSE = False
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]
LOGIN_URL = "admin:login"
LOGIN_REDIRECT_URL = "admin:index"

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_TZ = True

STATIC_URL = "/static/"
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = DEBUG
STORAGES = {
    "default": {
        "BACKEND": "scale.job.storage.DurableStorage",
        "OPTIONS": {
            "location": SCALE_STORAGE_DIR,
            "file_permissions_mode": 0o600,
            "directory_permissions_mode": 0o700,
        },
    },
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
# Files are only taken by the view for them: forms are read before anybody has logged in.
FILE_UPLOAD_HANDLERS = ["scale.api.uploads.NoUploads"]
DATA_UPLOAD_MAX_MEMORY_SIZE = 10 * 1024 * 1024

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "knox.auth.TokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["scale.api.permissions.AsNeeded"],
    "DEFAULT_RENDERER_CLASSES": ["scale.api.renderers.OrjsonRenderer"],
    "DEFAULT_PARSER_CLASSES": ["scale.api.renderers.StrictJsonParser"],
    "DEFAULT_SCHEMA_CLASS": "scale.api.described.Operation",
    "EXCEPTION_HANDLER": "scale.api.errors.handle",
    "UNAUTHENTICATED_USER": "django.contrib.auth.models.AnonymousUser",
}
REST_KNOX = {
    "AUTH_TOKEN_CHARACTER_LENGTH": 64,
    "TOKEN_TTL": None,
    "AUTH_HEADER_PREFIX": "Token",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Scale",
    "DESCRIPTION": (
        "A cluster job scheduler over Apache Mesos. Every address is there under `/v3/`, too.\n\n"
        "Errors are JSON objects with `detail`, `code` and, where one part of the request is to "
        "blame, `field`. Besides what each operation lists: 404 for an address that leads nowhere, "
        "405 with `Allow` for a method that is not there, 301 where the last slash is missing. "
        "Answers have the one form that is listed, whatever `Accept` says: there is no 406."
    ),
    "VERSION": "v3",
    "OAS_VERSION": "3.1.1",
    "SERVE_INCLUDE_SCHEMA": False,
    # The bodies of changes are described as they are.
    "COMPONENT_SPLIT_PATCH": False,
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "scale.api.described.complete",
    ],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
}
UNFOLD = {"SITE_TITLE": "Scale", "SITE_HEADER": "Scale", "SHOW_HISTORY": False}

SECURE_CONTENT_TYPE_NOSNIFF = True
X_FRAME_OPTIONS = "DENY"
# Served over https in production, behind a proxy that ends TLS.
_https = SCALE_API_URL.startswith("https://")
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = _https
SESSION_COOKIE_HTTPONLY = True
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if _https else None
SECURE_SSL_REDIRECT = _https
# Supervisors ask the process itself, without the proxy.
SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$"]
SECURE_HSTS_SECONDS = 31_536_000 if _https else 0
# Whether hosts below ours, or browsers' lists, are bound too is for the owner of the domain to say.
# W006 is about locks by address and browser; ours is by the name alone, which needs neither.
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021", "axes.W006"]

# Celery does what may be late or happen twice; the truth of what is owed is in rows.
CELERY_BROKER_URL = SCALE_BROKER_URL
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
# Without these a redis transport gives a lost task back after an hour (docs/operations.md).
CELERY_BROKER_TRANSPORT_OPTIONS = (
    {"visibility_timeout": 300, "unacked_restore_interval": 5, "unacked_restore_throttle": 1}
    if SCALE_BROKER_URL.startswith("redis")
    else {}
)
CELERY_BEAT_SCHEDULE = {
    "archive logs": {
        "task": "scale.job.tasks.archive_logs",
        "schedule": 5.0,
        "options": {"expires": 5.0},
    },
    "work off bulk actions": {
        "task": "scale.job.tasks.work_off_bulk_actions",
        "schedule": 2.0,
        "options": {"expires": 2.0},
    },
    # Counts are right without, but take longer the more there is to fold (docs/decisions/0008).
    "fold tallies": {
        "task": "scale.job.tasks.fold_tallies",
        "schedule": 10.0,
        "options": {"expires": 10.0},
    },
    "check tallies": {
        "task": "scale.job.tasks.check_tallies",
        "schedule": 86_400.0,
        "options": {"expires": 3600.0},
    },
    "measure the load": {
        "task": "scale.queue.tasks.measure_load",
        "schedule": SCALE_LOAD_PERIOD_S / 2,  # so that no period is missed by a late tick
        "options": {"expires": SCALE_LOAD_PERIOD_S / 2},
    },
    "measure days": {
        "task": "scale.queue.tasks.measure_days",
        "schedule": 600.0,
        "options": {"expires": 600.0},
    },
    "forget measures": {
        "task": "scale.queue.tasks.forget_measures",
        "schedule": 3600.0,
        "options": {"expires": 3600.0},
    },
    "forget idempotency keys": {
        "task": "scale.job.tasks.forget_idempotency_keys",
        "schedule": 3600.0,
        "options": {"expires": 3600.0},
    },
}

LOGGING = logging_settings(_log_format, _log_level, colors=sys.stderr.isatty())
