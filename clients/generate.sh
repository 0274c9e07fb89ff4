#!/bin/sh
# Generates the clients' stubs from protos/: Python with grpcio-tools, Go and TypeScript with buf (buf.gen.yaml).
# Tools are pinned here, in requirements-dev.txt and in clients/typescript/package-lock.json; they go to .local/tools.
# buf comes from npm, so without node (or npm) neither Go nor TypeScript is generated, without go Go is not. It is no
# dependency of the TypeScript client: its binaries for other systems would make the lock file differ by machine.
set -eu
cd "$(dirname "$0")/.."

BUF=1.75.0
PROTOC_GEN_GO=v1.36.12
PROTOC_GEN_GO_GRPC=v1.6.2
PYTHON=${PYTHON:-.venv/bin/python}

tools=$PWD/.local/tools
template=$tools/buf.gen.yaml
mkdir -p "$tools"

# go_tool NAME VERSION MODULE: installs a Go program unless that version is there.
go_tool() {
    "$tools/bin/$1" --version 2>/dev/null | grep -qE " v?${2#v}\$" && return
    echo "installing $1 $2"
    (cd "$tools" && GOBIN="$tools/bin" go install "$3@$2")
}

rm -f clients/python/godoty/v1/*_pb2.py clients/python/godoty/v1/*_pb2.pyi clients/python/godoty/v1/*_pb2_grpc.py
PYTHON=$PYTHON protos/imports.sh
"$PYTHON" -m grpc_tools.protoc -Iprotos -I.local/protos --python_out=clients/python --pyi_out=clients/python \
    --grpc_python_out=clients/python protos/godoty/v1/*.proto
"$PYTHON" clients/python/generate.py
echo "Python stubs: generated"

if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
    echo "TypeScript stubs: skipped, node and npm are not installed"
    echo "Go stubs: skipped, buf runs on node"
    exit 0
fi

cp buf.gen.yaml "$template"
(cd clients/typescript && npm ci --loglevel=error --no-audit --no-fund)
buf=$tools/node_modules/.bin/buf
if [ "$("$buf" --version 2>/dev/null)" != "$BUF" ]; then
    echo "installing buf $BUF"
    npm install --loglevel=error --no-audit --no-fund --no-save --no-package-lock --prefix "$tools" "@bufbuild/buf@$BUF"
fi
rm -rf clients/typescript/src/gen
if command -v go >/dev/null; then
    go_tool protoc-gen-go "$PROTOC_GEN_GO" google.golang.org/protobuf/cmd/protoc-gen-go
    go_tool protoc-gen-go-grpc "$PROTOC_GEN_GO_GRPC" google.golang.org/grpc/cmd/protoc-gen-go-grpc
    rm -rf clients/go/godoty
else
    grep -v protoc-gen-go buf.gen.yaml >"$template"
fi
"$buf" generate protos --template "$template"
echo "TypeScript stubs: generated"
if command -v go >/dev/null; then
    echo "Go stubs: generated"
else
    echo "Go stubs: skipped, go is not installed"
fi
