import ./real.nix { }
