//! Cases that failed once, by what they are about.

/// As [`Case`](super::case::Case) reads them.
pub const CASES: [(&str, &str); 51] = [
    (
        "the last copy is the record of the first one",
        r#"FROM scratch AS a
COPY sh /sh
RUN ["/sh","-c","echo 1 >/made"]
FROM scratch
COPY --from=a /sh /sh
---
build
build
"#,
    ),
    (
        "the last copy is the record of a linked one on a lazy base",
        r"FROM {base} AS a
COPY --link sh /sh
FROM scratch
COPY --from=a /sh /sh
---
build
build
",
    ),
    (
        "the last copy is the record of the first one, and git is on top",
        r"FROM scratch AS s0
COPY a.txt /m.txt
FROM scratch
COPY --from=s0 /m.txt /m.txt
ADD {git} /g
---
build
build & target=s0
",
    ),
    (
        "equal hops",
        r"FROM {base} AS deps
RUN echo x >/m
FROM {base} AS prod
COPY --from=deps /m /m
FROM {base}
COPY --from=prod /m /m
---
build
wipe
build import=1
",
    ),
    (
        "a linked copy on a lazy base",
        r"FROM {base}
COPY --link sh /sh
---
build
build
build argument=1
",
    ),
    (
        "no step has an input",
        r"FROM scratch
WORKDIR /x
---
build
",
    ),
    (
        "asked for twice",
        r"FROM {base}
RUN echo 1 >/m
---
build export=twice
build export=argument
",
    ),
    (
        "a file by http changes and changes back",
        r"FROM {base}
ADD {web} /h
RUN wc -c </h >/n; rm /h
FROM {base}
COPY --from=0 /n /n
---
build
web two
build
web one
build
",
    ),
    (
        "an image that is copied from moves and moves back",
        r"FROM {tool} AS t
FROM {base}
COPY --from=t /etc/passwd /n
---
build
tool two
build
tool one
build
",
    ),
    (
        "an image that is copied from moves, and the copy is forgotten",
        r"FROM {base} AS s1
FROM scratch
COPY --from=s1 /etc/passwd /c1
---
build
base three
build
forget COPY
build
",
    ),
    (
        "an import and then none",
        r"FROM {base} AS a
RUN echo 1 >/m
FROM {base}
COPY --from=a /m /m
---
build
wipe
build import=1
build
",
    ),
    (
        "an import and then none, with a linked file by http",
        r"FROM {base}
RUN read x </base; echo read >/f1
ADD --link {web} /w
RUN read x </proc/sys/kernel/random/uuid; echo $x >/x2
---
build
wipe
build import=1
build
",
    ),
    (
        "an import and then none, with equal names",
        r"FROM {base} AS s3
FROM {base}
COPY --from=s3 /etc/passwd /etc/passwd
---
build
wipe
build import=1
build
",
    ),
    (
        "linked copies on a base that moved, with the import",
        r"FROM {base} AS mod
RUN echo v >/v
FROM mod AS build
RUN echo s >/s
FROM {base}
COPY --link --from=build /s /s
COPY --from=mod /v /l
---
build
wipe
base two
build import=1
wipe
build
",
    ),
    (
        "two platforms of a git context, with an import",
        r"FROM scratch AS s2
COPY sh /sh
FROM {base}
RUN cd /
COPY --link --from=s2 /sh /sh
---
build two-platforms git
build import=1 two-platforms git
",
    ),
    (
        "an import beside one that is gone, and a change",
        r"FROM {tool}
COPY --link --from={pinned} /etc/passwd /i2
COPY dir /dir
RUN cd /
COPY --link b.txt /b.txt
---
build
build export=argument
wipe
build import=gone import=2
write dir/c.txt three
build
",
    ),
    (
        "a named context's image, an import and then none",
        r"FROM image
RUN echo 1 >/k1
---
build
wipe
build import=1
build
",
    ),
    (
        "a linked copy of an equal one, an import and then none, of a git context",
        r"FROM scratch AS s0
COPY sh /sh
FROM {base}
COPY --link --from=s0 /sh /sh
---
build
wipe
build import=1 git
build git
",
    ),
    (
        "a merge below the last copy: only a warm daemon tells the content of an image",
        r"FROM {base} AS s0
RUN echo 1 >/x1
FROM scratch AS s1
COPY --from={pinned} /base /i2
COPY --link --from=s0 /x1 /x1
FROM scratch
COPY --from=s1 /x1 /x1
---
build
build
",
    ),
    (
        "two copies of one content below the last one, one of them linked",
        r"FROM {base} AS s0
FROM scratch AS s2
COPY --from=s0 /etc/passwd /etc/passwd
COPY --link --from={pinned} /etc/passwd /i3
FROM scratch
COPY --from=s2 /etc/passwd /etc/passwd
---
build
build
",
    ),
    (
        "an import in another compression",
        r"FROM scratch AS s0
COPY sh /sh
FROM scratch
COPY --from=s0 /sh /sh
---
build
build compression=zstd
wipe
build import=2
",
    ),
    (
        "two equal layers in one image",
        r"FROM {base} AS s0
FROM {base}
COPY --link --from=s0 /base /base
ADD --link {git} /g
---
build
prune
build import=1
build
",
    ),
    (
        "a linked copy that a step of an earlier stage is equal to",
        r"FROM scratch AS s0
COPY a.txt /a.txt
COPY sh /sh
FROM scratch
ADD {web} /w
COPY --link --from=s0 /a.txt /a.txt
---
build
build
",
    ),
    (
        "a step with a secret, an import and then none",
        r"FROM {base}
COPY a.txt /a.txt
RUN --mount=type=secret,id=s cat /run/secrets/s >/k1
---
build
wipe
build import=1
build
",
    ),
    (
        "a linked copy of a stage that the image has a layer of",
        r"FROM {tool} AS s0
COPY --link --from=extra e.txt /e
RUN read x </etc/passwd; echo read >/f2
FROM {tool}
COPY --from=s0 /f2 /base
COPY --link --from=extra e.txt /e
---
build compression=uncompressed
wipe
build import=1 compression=uncompressed
build compression=uncompressed
",
    ),
    (
        "two linked copies of one content on two pinned images",
        r"FROM scratch AS s0
COPY --from={pinned} /etc/passwd /i2
FROM scratch AS s1
COPY sh /sh
FROM {base} AS s2
COPY --link --from=s0 /i2 /i2
FROM {pinned}
COPY --link --from=s2 /i2 /i2
COPY --link --from=s1 /sh /sh
---
base relabelled
build
",
    ),
    (
        "equal copies on two images, of which a cold daemon exports the last",
        r"FROM {tool} AS s0
COPY a.txt /a.txt
FROM scratch AS s2
COPY --from=s0 /a.txt /a.txt
FROM {base}
COPY --from=s2 /a.txt /a.txt
RUN echo 1 >/k1
---
build
build
",
    ),
    (
        "equal copies in a row, and a daemon that breaks the circle",
        r"FROM {base} AS s0
FROM {base} AS s1
RUN echo 1 >/k1
COPY --from=s0 /base /base
FROM scratch AS s2
COPY --from=s1 /base /base
FROM {base}
COPY --from=s2 /base /base
---
build
build import=1
",
    ),
    (
        "an import, then another last step, and its import",
        r"FROM {base} AS s0
COPY --link dir/*.txt /d/
FROM {base}
COPY --from=s0 /etc/passwd /etc/passwd
ARG V=0
RUN echo $V >/v
---
build
wipe
build import=1
build argument=1
prune
build import=3
",
    ),
    (
        "equal copies of a layer that the base has too",
        r"FROM {base} AS s1
FROM scratch AS s2
COPY --from=s1 /base /base
FROM scratch AS s3
COPY --from=s2 /base /base
COPY --from=s2 /base /base
FROM {base}
COPY --link --from=s3 /base /base
---
build
build
",
    ),
    (
        "a file from two stages, copied again onto what has it",
        r#"FROM scratch AS s0
ADD {git} /g
COPY sh /sh
RUN ["/sh","-c","read x </g/a.txt; echo $x >/r1"]
COPY --link --from=extra e.txt /e
FROM scratch AS s1
COPY --link --from=extra e.txt /e
COPY a.txt /a.txt
COPY --link sh /sh
FROM {base} AS s2
COPY --from=s1 /sh /sh
COPY --from=s0 /sh /sh
COPY --from=s0 /e /e
RUN read x </etc/passwd; echo read >/f2
FROM s2
COPY --from=s0 /sh /sh
---
build
build import=1
"#,
    ),
    (
        "equal copies in a row on three images, one of which moves",
        r"FROM {pinned} AS s0
FROM image AS s1
COPY --from=extra e.txt /e
COPY a.txt /a.txt
COPY --from=s0 /etc/passwd /etc/passwd
ADD ar.tar /ar/
FROM image AS s2
COPY --from=s1 /etc/passwd /etc/passwd
FROM {tool}
COPY --from=s2 /etc/passwd /etc/passwd
---
build
base three
build import=1
",
    ),
    (
        "a directory that changes below a stage that an import found by content",
        r"FROM {base} AS s2
FROM {base} AS s3
COPY --link --from=s2 /base /base
COPY --from=s2 /base /base
COPY --link a.txt /a.txt
FROM scratch AS s4
COPY --from=s3 /base /base
FROM image
COPY --from=s4 /base /base
---
build
write a.txt three
wipe
build import=1
build
",
    ),
    (
        "a stage repeats the first step of the image",
        r#"FROM scratch AS s1
COPY sh /sh
RUN ["/sh","-c","read x </sh; echo read >/f1"]
FROM scratch AS s2
COPY --from=s1 /sh /sh
COPY dir /n
FROM s1
COPY --from=s2 /n/c.txt /n/c.txt
---
build
build
"#,
    ),
    (
        "linked targets with equal steps",
        r"FROM {base} AS s0
RUN echo 1 >/k1
FROM image
COPY a.txt /a.txt
COPY --from=s0 /k1 /k2
RUN echo 2 >/k3
---
bake & linked
wipe
bake import=1 & import=2 linked
write a.txt two
bake & linked
prune
bake import=5 & import=6 linked
",
    ),
    (
        "two platforms, and commands that a cold daemon does not export",
        r"FROM {base} AS s0
COPY b.txt /b.txt
RUN read x </tool; echo $x >/r1
FROM {base} AS s1
COPY --link --from=s0 /r1 /r1
RUN echo 1 >/k1
RUN echo 1 >/k1
FROM {tool}
COPY --link --from=s1 /r1 /r1
---
build two-platforms
",
    ),
    (
        "a directory that changes and changes back, and a random step",
        r"FROM {base} AS s0
COPY dir/*.txt /d/
RUN read x </proc/sys/kernel/random/uuid; echo $x >/x1
COPY --chown=1:1 a.txt /o.txt
FROM s0
COPY --from=s0 /x1 /x1
COPY --from=s0 /o.txt /o.txt
COPY --link --from=s0 /etc/passwd /etc/passwd
---
build compression=zstd
write dir/c.txt two
build compression=zstd
write dir/c.txt one
build compression=zstd
",
    ),
    (
        "a result that a daemon loads from an import when what is above changes",
        r"FROM scratch AS s0
COPY sh /sh
FROM scratch AS s1
COPY --from=s0 /sh /c1
COPY --from=s0 /sh /sh
COPY --link --from=s0 /sh /sh
FROM s1
COPY --from={tool} /etc/passwd /i2
COPY --link --from=s0 /sh /sh
---
prune
build
wipe
build import=1
tool three
build
",
    ),
    (
        "a linked copy, and an earlier one that has the layer of the base",
        r"FROM {pinned} AS s0
COPY --chown=1:1 a.txt /o.txt
FROM {base}
COPY --from=s0 /o.txt /o.txt
COPY --link --from=s0 /base /base
RUN echo 2 >/k2
COPY --link --from=s0 /base /base
---
build
wipe
build import=1
base two
build
base one
build
",
    ),
    (
        "a result that plain BuildKit had to load from an import",
        r"FROM scratch AS s0
COPY a.txt /a.txt
FROM scratch
COPY --from=s0 /a.txt /c1
COPY --link --from=s0 /a.txt /a.txt
---
build
wipe
build import=1
build target=s0
",
    ),
    (
        "content of a random step that ran again on another manifest",
        r"FROM image AS s0
RUN read x </proc/sys/kernel/random/uuid; echo $x >/x1
FROM s0 AS s1
COPY --from={base} /base /i4
FROM {pinned} AS s2
COPY --link --from=s1 /x1 /x1
FROM {tool}
COPY --link --from=s2 /base /r6
---
build two-platforms
base relabelled
prune
build import=1 two-platforms
prune
build two-platforms
",
    ),
    (
        "content of equal hops that an import tells and a daemon does not",
        r"FROM {base} AS s0
ADD ar.tar /ar/
FROM scratch AS s1
COPY --from=s0 /etc/passwd /etc/passwd
COPY --from=s0 /ar/archived.txt /ar/archived.txt
FROM {base} AS s2
COPY --from=s1 /ar/archived.txt /ar/archived.txt
FROM image
COPY --from=s2 /ar/archived.txt /ar/archived.txt
---
build
prune
build import=1
",
    ),
    (
        "a step that is made of two steps with its key",
        r"FROM {base} AS s0
FROM scratch AS s1
COPY --from=s0 /etc/passwd /etc/passwd
FROM scratch AS s2
COPY --from=s1 /etc/passwd /etc/passwd
FROM scratch
COPY --from=s2 /etc/passwd /etc/passwd
COPY --from=s2 /etc/passwd /etc/passwd
---
build
build
",
    ),
    (
        "content of the last of equal hops when a stage below changed",
        r"FROM {pinned} AS s0
FROM {pinned} AS s1
COPY --from=s0 /etc/passwd /c1
COPY --from=s0 /base /base
COPY a.txt b.txt /ab/
FROM {base} AS s2
COPY --from=s1 /base /base
FROM {base}
COPY --from=s2 /base /base
---
build
write b.txt three
build import=1
prune
build import=1
",
    ),
    (
        "a circle that cuts off all of a stage",
        r"FROM {base} AS s0
COPY . /all/
FROM scratch AS s1
COPY --from=s0 /all/a.txt /all/a.txt
COPY --from=s0 /etc/passwd /etc/passwd
FROM scratch AS s2
COPY --from=s1 /etc/passwd /etc/passwd
FROM scratch
COPY --from=s2 /etc/passwd /etc/passwd
COPY --from=s2 /etc/passwd /etc/passwd
---
build
build
",
    ),
    (
        "equal hops in a stage without a base",
        r"FROM {base} AS s0
ADD ar.tar /ar/
FROM scratch AS s1
COPY --from=s0 /etc/passwd /etc/passwd
COPY --from=s0 /ar/archived.txt /ar/archived.txt
FROM scratch AS s2
COPY --from=s1 /ar/archived.txt /ar/archived.txt
FROM image
COPY --from=s2 /ar/archived.txt /ar/archived.txt
---
build
build
",
    ),
    (
        "an import tells the content of equal hops to the build after it",
        r"FROM {base} AS s0
ADD ar.tar /ar/
FROM scratch AS s1
COPY --from=s0 /etc/passwd /etc/passwd
COPY --from=s0 /ar/archived.txt /ar/archived.txt
FROM {base} AS s2
COPY --from=s1 /ar/archived.txt /ar/archived.txt
FROM {base}
COPY --from=s2 /ar/archived.txt /ar/archived.txt
---
build
prune
build import=1
build
",
    ),
    (
        "a circle that cuts off a stage with a linked copy",
        r"FROM {base} AS s0
COPY . /all/
FROM scratch AS s1
COPY --from=s0 /all/a.txt /all/a.txt
COPY --link --from=s0 /etc/passwd /etc/passwd
FROM scratch AS s2
COPY --from=s1 /etc/passwd /etc/passwd
FROM scratch
COPY --from=s2 /etc/passwd /etc/passwd
COPY --from=s2 /etc/passwd /etc/passwd
---
build
build
",
    ),
    (
        "equal copies in two stages and the image, after an import",
        r#"FROM scratch AS s0
COPY sh /sh
COPY --exclude=*.md dir /n
COPY dir/*.txt /d/
FROM {base} AS s1
COPY --from=s0 /n/c.txt /n/c.txt
RUN cd /
RUN read x </etc/passwd; echo $x >/r1
FROM scratch AS s2
COPY --from=s1 /n/c.txt /n/c.txt
COPY dir /dir
FROM scratch AS s3
COPY --link sh /sh
RUN ["/sh","-c","cd /"]
COPY --link --from=s1 /n/c.txt /n/c.txt
FROM {base} AS s4
COPY --from=s3 /n/c.txt /n/c.txt
RUN --mount=type=bind,from=s2,target=/mnt read x </mnt/dir/c.txt; echo $x >/r2
FROM scratch
COPY --from=s4 /n/c.txt /n/c.txt
ENV E=1
---
build
prune
prune
build import=1
build
"#,
    ),
    (
        "equal copies on one base, cold and warm",
        r"FROM {base} AS s0
FROM {base} AS s1
RUN echo 1 >/k1
COPY --from=s0 /etc/passwd /etc/passwd
FROM {base} AS s2
COPY --from=s1 /etc/passwd /etc/passwd
FROM {base}
COPY --from=s2 /etc/passwd /etc/passwd
---
build
build
",
    ),
    (
        "content that is forgotten makes two records one",
        r"FROM {base} AS s0
ARG V=0
COPY b.txt /b.txt
FROM {tool}
RUN read x </etc/passwd; echo read >/f1
COPY --link b.txt /b.txt
COPY --link --from=s0 /b.txt /b.txt
ADD {web} /w
---
build argument=0
wipe
build import=1 import=gone
restart inlay
build
",
    ),
];
