//! Four projects with Dockerfiles of the usual kinds. The programs that they would call are stood in for by
//! a shell, whose output is a function of what it reads.

/// A project.
#[derive(Debug)]
pub struct Plan {
    pub name: &'static str,
    pub dockerfile: &'static str,
    pub files: &'static [(&'static str, &'static str)],
    /// The stages that are built, each to an image; "" is the last one.
    pub targets: &'static [&'static str],
    /// The file that changes most often.
    pub source: &'static str,
    /// A file that changes in a pull request.
    pub other_source: &'static str,
    /// The list of what the project depends on.
    pub dependencies: &'static str,
}

pub const PLANS: [Plan; 4] = [WEB, SERVICE, BINARIES, MODULES];

/// As with npm: what only the build needs is in a stage of its own.
const WEB: Plan = Plan {
    name: "web",
    dockerfile: r#"ARG BASE=scratch
FROM ${BASE} AS base
WORKDIR /app

FROM base AS all-packages
COPY package.json package-lock.json ./
RUN --mount=type=cache,target=/root/.npm \
    mkdir packages && while read name; do echo $name >packages/$name; done <package-lock.json && \
    cp packages/* /root/.npm/

FROM base AS packages
COPY package.json package-lock.json ./
RUN mkdir packages && grep -v test package-lock.json | while read name; do echo $name >packages/$name; done

FROM all-packages AS bundle
COPY . .
RUN mkdir dist && cat src/*.js >dist/bundle.js && ls packages >>dist/bundle.js

FROM bundle AS test
RUN grep -q . dist/bundle.js

FROM base
ENV NODE_ENV=production
COPY --from=packages /app/packages packages
COPY --from=bundle /app/dist dist
COPY package.json .
RUN ls -R >/contents
USER 1000
CMD ["serve", "dist/bundle.js"]
"#,
    files: &[
        (".dockerignore", "packages\n*.md\n"),
        ("README.md", "not in the context\n"),
        ("package.json", "{\"name\": \"web\"}\n"),
        ("package-lock.json", "router\nviews\ntest-runner\n"),
        ("src/a.js", "a\n"),
        ("src/b.js", "b\n"),
    ],
    targets: &[""],
    source: "src/a.js",
    other_source: "src/b.js",
    dependencies: "package-lock.json",
};

/// As with pip: packages are installed in one stage and copied.
const SERVICE: Plan = Plan {
    name: "service",
    dockerfile: r#"ARG BASE=scratch
FROM ${BASE} AS builder
WORKDIR /work
COPY requirements.txt .
RUN mkdir -p /venv/lib && while read name; do echo $name >/venv/lib/$name; done <requirements.txt

FROM ${BASE}
ENV PATH=/venv/bin:/bin
COPY --from=builder /venv /venv
WORKDIR /srv
COPY pyproject.toml .
RUN cp pyproject.toml /etc/project
COPY app app
RUN find app -name '*.py' -exec sha256sum {} + | sort >compiled
HEALTHCHECK CMD true
ENTRYPOINT ["python", "-m", "app"]
"#,
    files: &[
        ("requirements.txt", "server\nclient\n"),
        ("pyproject.toml", "[project]\n"),
        ("app/__init__.py", "\n"),
        ("app/a.py", "a\n"),
        ("app/b.py", "b\n"),
    ],
    targets: &[""],
    source: "app/a.py",
    other_source: "app/b.py",
    dependencies: "requirements.txt",
};

/// As with Go: sources are mounted, and linked copies put the binaries on a base.
const BINARIES: Plan = Plan {
    name: "binaries",
    dockerfile: r#"ARG BASE=scratch
FROM ${BASE} AS base
WORKDIR /src

FROM base AS modules
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod \
    mkdir /vendor && while read name; do mkdir -p /go/pkg/mod/$name; done <go.sum && cp go.sum /vendor/

FROM modules AS build
ARG TARGETARCH
RUN --mount=type=bind,target=. --mount=type=cache,target=/root/.cache \
    mkdir -p /out && find . -name '*.go' | sort | xargs cat >/out/server && cp /out/server /root/.cache/last
RUN --mount=type=bind,target=. \
    mkdir -p /out && cat cmd/tool/*.go >/out/tool

FROM scratch AS out
COPY --from=build /out /

FROM ${BASE}
COPY --link --from=build /out/server /bin/server
COPY --link --from=build /out/tool /bin/tool
COPY --from=modules /vendor /licenses
ENTRYPOINT ["/bin/server"]
"#,
    files: &[
        ("go.mod", "module binaries\n"),
        ("go.sum", "one\ntwo\n"),
        ("main.go", "package main\n"),
        ("pkg/p.go", "package p\n"),
        ("cmd/tool/main.go", "package main // the tool\n"),
    ],
    targets: &[""],
    source: "pkg/p.go",
    other_source: "cmd/tool/main.go",
    dependencies: "go.sum",
};

/// As with Maven: modules on one parent, and several images of one Dockerfile at once.
const MODULES: Plan = Plan {
    name: "modules",
    dockerfile: r#"ARG BASE=scratch
FROM ${BASE} AS parent
WORKDIR /build
COPY pom.xml .
COPY core/pom.xml core/
COPY shop/pom.xml shop/
COPY stock/pom.xml stock/
RUN mkdir /repository && cat pom.xml */pom.xml >/repository/resolved

FROM parent AS core
COPY core core
RUN mkdir core/target && cat core/src/* >core/target/core.jar

FROM core AS build-shop
COPY shop shop
RUN mkdir shop/target && cat core/target/core.jar shop/src/* >shop/target/shop.jar

FROM core AS build-stock
COPY stock stock
RUN mkdir stock/target && cat core/target/core.jar stock/src/* >stock/target/stock.jar

FROM ${BASE} AS runtime
RUN mkdir -p /opt/runtime && echo 21 >/opt/runtime/release

FROM runtime AS shop
COPY --from=build-shop /build/shop/target/shop.jar /shop.jar

FROM runtime AS stock
COPY --from=build-stock /build/stock/target/stock.jar /stock.jar

FROM runtime AS all
COPY --from=build-shop /build/shop/target /jars
COPY --from=build-stock /build/stock/target /jars
"#,
    files: &[
        ("pom.xml", "<parent/>\n"),
        ("core/pom.xml", "<core/>\n"),
        ("core/src/Core.java", "class Core\n"),
        ("shop/pom.xml", "<shop/>\n"),
        ("shop/src/Shop.java", "class Shop\n"),
        ("stock/pom.xml", "<stock/>\n"),
        ("stock/src/Stock.java", "class Stock\n"),
    ],
    targets: &["shop", "stock", "all"],
    source: "shop/src/Shop.java",
    other_source: "core/src/Core.java",
    dependencies: "stock/pom.xml",
};
