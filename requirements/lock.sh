# Resolve what setup.cfg asks for into hash-pinned files; called by `make lock` with the path of uv.
set -eu
cd "$(dirname "$0")"
compile() {
    "$1" pip compile --quiet --universal --python-version 3.11 --generate-hashes --upgrade \
        --no-header --no-emit-index-url --no-emit-find-links "$2" $3 --output-file "$4"
}
uv=$1
without_http_parser="--override overrides.txt --no-emit-package http-parser"
compile "$uv" ../setup.cfg "$without_http_parser" run.txt
compile "$uv" ../setup.cfg "$without_http_parser --extra dev --constraint run.txt" dev.txt
printf 'setuptools\nwheel\n' > build.in
compile "$uv" build.in "" build.txt
printf 'uv\n' > bootstrap.in
compile "$uv" bootstrap.in "" bootstrap.txt
rm build.in bootstrap.in
