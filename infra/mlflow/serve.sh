#!/usr/bin/env bash
# The tracking server's entry: checks the settings, makes what is missing in PostgreSQL and S3, and becomes `mlflow server`.
#   serve.sh           serve
#   serve.sh upgrade   bring both databases to this version of MLflow, and end (back up first)
# All settings come from the environment. PostgreSQL's and S3's clients read their passwords there themselves, so that
# none is in an address, on a command line, in a file, or in the log.
set -euo pipefail

require() { # NAME, what it is
  [[ -n ${!1:-} ]] || { echo "error: $1 is not set; give $2" >&2; exit 2; }
}
require PGHOST "PostgreSQL's host"
require PGUSER "the database's user"
require PGPASSWORD "that user's password"
require MLFLOW_ARTIFACTS_DESTINATION "the bucket for artifacts, s3://BUCKET/FOLDER"
require MLFLOW_AUTH_ADMIN_USERNAME "the first administrator's name"
require MLFLOW_AUTH_ADMIN_PASSWORD "the first administrator's password, 12 characters or more"
require MLFLOW_FLASK_SERVER_SECRET_KEY "a random text that signs forms, the same for every replica"
((${#MLFLOW_AUTH_ADMIN_PASSWORD} >= 12)) || { echo "error: MLFLOW_AUTH_ADMIN_PASSWORD has fewer than 12 characters; MLflow wants 12" >&2; exit 2; }

export PGDATABASE=${PGDATABASE:-mlflow} PGCONNECT_TIMEOUT=${PGCONNECT_TIMEOUT:-10}
users="${PGDATABASE}_auth" # who may do what lies beside, in a database of its own
export MLFLOW_BACKEND_STORE_URI="postgresql+psycopg2:///$PGDATABASE" # SQLAlchemy 2.1 takes another driver if none is named
export MLFLOW_HOST=${MLFLOW_HOST:-0.0.0.0} MLFLOW_PORT=${MLFLOW_PORT:-5000} MLFLOW_WORKERS=${MLFLOW_WORKERS:-2}
export MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false # no agents and scorers here

# The databases, where the role may make them, and the bucket. In one line what is wrong, and the container's restart tries again.
python - "$users" <<'PYTHON'
import os, sys
from urllib.parse import urlsplit
import boto3, psycopg2
from botocore.exceptions import BotoCoreError, ClientError

def fail(what, error):
    sys.exit(f"error: {what}: {' '.join(str(error).split())}")

def missing(name):
    try:
        psycopg2.connect(dbname=name).close()
    except psycopg2.OperationalError as error:
        if f'database "{name}" does not exist' in str(error):
            return True
        fail("PostgreSQL at " + os.environ["PGHOST"], error)
    return False

for name in filter(missing, (os.environ["PGDATABASE"], sys.argv[1])):
    try:
        connection = psycopg2.connect(dbname="postgres")
        connection.autocommit = True
        connection.cursor().execute('CREATE DATABASE "{}"'.format(name.replace('"', '""')))
    except psycopg2.errors.DuplicateDatabase:
        pass  # another replica was faster
    except psycopg2.Error as error:
        fail(f"the database {name} does not exist and cannot be made", error)

there = urlsplit(os.environ["MLFLOW_ARTIFACTS_DESTINATION"])
if there.scheme != "s3" or not there.netloc:
    fail("MLFLOW_ARTIFACTS_DESTINATION", f"{there.geturl()!r} is no s3://BUCKET/FOLDER")
store = boto3.client("s3", endpoint_url=os.environ.get("MLFLOW_S3_ENDPOINT_URL") or None)
try:
    store.head_bucket(Bucket=there.netloc)
except ClientError as error:
    if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
        fail(f"the bucket {there.netloc}", error)
    try:
        store.create_bucket(Bucket=there.netloc)
    except (BotoCoreError, ClientError) as problem:
        fail(f"the bucket {there.netloc} does not exist and cannot be made", problem)
except (BotoCoreError, ValueError) as error:
    fail(f"the S3 store of {there.netloc}", error)
PYTHON

if [[ ${1:-} == upgrade ]]; then
  mlflow db upgrade "$MLFLOW_BACKEND_STORE_URI"
  exec python -m mlflow.server.auth db upgrade --url "postgresql+psycopg2:///$users"
fi
[[ $# == 0 ]] || { echo "error: serve.sh knows \`upgrade\`, or nothing to serve; not $*" >&2; exit 2; }

# MLflow reads these from a file only. The folder is the container's own, and the file holds nothing secret.
MLFLOW_AUTH_CONFIG_PATH=$(mktemp --tmpdir mlflow-auth-XXXXXX.ini)
export MLFLOW_AUTH_CONFIG_PATH
cat >"$MLFLOW_AUTH_CONFIG_PATH" <<INI
[mlflow]
database_uri = postgresql+psycopg2:///$users
default_permission = ${MLFLOW_AUTH_DEFAULT_PERMISSION:-READ}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
# Registering an encoder is some 380 requests, and hashing the password anew for each made that 100 s instead of 15.
# A password that is changed through another worker stays good for this long.
auth_cache_ttl_seconds = ${MLFLOW_AUTH_CACHE_SECONDS:-60}
INI
exec mlflow server --app-name basic-auth
