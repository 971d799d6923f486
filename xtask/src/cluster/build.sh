#!/bin/sh
# Builds kube-apiserver and kube-controller-manager from the source that Debian's package `kubernetes` is made of.
# In: SOURCE the tarball, GOROOT Go 1.19, REFLECT2 a newer github.com/modern-go/reflect2, WORK an empty folder,
# VERSION what the programs are to say, OUT the folder they go to. Fetches nothing.
set -eu
export PATH="$GOROOT/bin:$PATH" GO111MODULE=off GOPATH="$WORK/gopath" GOCACHE="$WORK/cache" GOTMPDIR="$WORK" GOFLAGS=-trimpath
# With cgo a C compiler would be needed, for nothing that these programs do here.
export CGO_ENABLED=0 GOENV=off

# The tree has no module of its own in this mode: it is found by its place.
tree="$GOPATH/src/k8s.io/kubernetes"
mkdir -p "$tree" "$OUT"
tar --extract --file "$SOURCE" --strip-components 1 --no-same-owner --directory "$tree"
cd "$tree"
# Kubernetes 1.20 brings reflect2 1.0.1, which reads maps of Go's runtime that look otherwise since Go 1.18.
rm -rf vendor/github.com/modern-go/reflect2
cp -r "$REFLECT2" vendor/github.com/modern-go/reflect2

# What the types look like is generated, as upstream's `make generated_files` does, without its make and bash: of every package that
# asks for it, except examples, and what configures programs that are not built here.
packages=$(grep -rlE --include='*.go' '^[[:space:]]*// ?[+]k8s:openapi-gen=' pkg staging vendor/k8s.io |
    grep -vE '/zz_generated|/testdata/|/_examples/|/sample-apiserver/|/config/v[^/]*/[^/]*$' |
    sed 's,^staging/src/,vendor/,; s,/[^/]*$,,; s,^,k8s.io/kubernetes/,' | sort -u | paste -sd, -)
go build -o "$WORK/openapi-gen" ./vendor/k8s.io/kube-openapi/cmd/openapi-gen
"$WORK/openapi-gen" --output-file-base zz_generated.openapi --go-header-file hack/boilerplate/boilerplate.generatego.txt \
    --output-package k8s.io/kubernetes/pkg/generated/openapi --report-filename "$WORK/violations" --input-dirs "$packages"

# Two packages know it: one for --version, the other for what the server answers.
minor=${VERSION#v*.}
stamp=
for base in component-base/version client-go/pkg/version; do
    base=k8s.io/kubernetes/vendor/k8s.io/$base
    stamp="$stamp -X $base.gitVersion=$VERSION -X $base.gitMajor=1 -X $base.gitMinor=${minor%%.*}"
done
# Without the clouds' clients, which are a good part of the code.
go build -tags providerless -ldflags "-s -w$stamp" -o "$OUT/" ./cmd/kube-apiserver ./cmd/kube-controller-manager
