"""Pull requests of GitHub, built by GitLab: `nixprov bridge`, a service of its own beside up and down (ADR 0032).

Level-triggered: `Bridge.settle` reads what is true on both sides and closes the gap. A timer calls it, a webhook only
rings for it, so that events that are lost, repeated, forged or late are all the same case.

    values, policy   what is known, and what follows from it: no I/O, nothing foreign is trusted for its place
    config           bridge.toml
    git              the only file that starts git: quarantine, limits, leases
    github, gitlab   the two APIs
    store            what is remembered; lost, it is read again from the two sides
    reconcile        one pass
    preflight        what makes a project of GitLab's unsafe for strangers
    doorbell, service    passes for as long as the service lives
"""
