# see
./real.nix
