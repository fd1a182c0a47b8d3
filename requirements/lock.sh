# Resolve what setup.cfg asks for into hash-pinned files; called by `make lock`.
#   lock.sh UV [--upgrade]    without --upgrade, versions move only where they must
set -eu
uv=$(realpath "$1")
upgrade=${2:-}
cd "$(dirname "$0")"
compile() {
    "$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes $upgrade \
        --no-header --no-emit-index-url --no-emit-find-links "$1" $2 --output-file "$3"
}
without_http_parser="--override overrides.txt --no-emit-package http-parser"
compile ../setup.cfg "$without_http_parser" run.txt
compile ../setup.cfg "$without_http_parser --override overrides-dev.txt --extra dev --constraint run.txt" dev.txt
printf 'setuptools\nwheel\n' > build.in
compile build.in "" build.txt
printf 'uv\n' > bootstrap.in
compile bootstrap.in "" bootstrap.txt
rm build.in bootstrap.in
