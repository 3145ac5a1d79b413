"""An ssh client: one session with one machine. Must not know NixOS, nor a step of ours."""
