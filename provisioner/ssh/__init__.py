"""An ssh client: one session with one machine. It must not know NixOS, nor any step of ours."""
