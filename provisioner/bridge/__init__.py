"""Pull requests of GitHub, built by GitLab: `nixprov bridge`, a service of its own beside up and down (ADR 0032).

Level-triggered: `Bridge.settle` reads the truth on both sides and closes the gap. A timer calls it, and a webhook
only rings for it. Lost, repeated, forged and late events are then the same case.

    values, policy   the facts of both sides and the rules for them: no I/O
    config           bridge.toml
    git              the only file that starts git: quarantine, limits, leases
    github, gitlab   the two APIs
    store            the memory between passes; it can be lost
    reconcile        one pass
    preflight        settings of GitLab and the App that are unsafe for strangers
    beginning        the first bridge.toml
    doorbell, service    passes for as long as the service lives
"""
