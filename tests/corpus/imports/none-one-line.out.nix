{ ... }: { imports = [ (if builtins.pathExists ./nixprov/default.nix then ./nixprov/default.nix else { }) ]; /* nixprov */ networking.hostName = "a"; }
