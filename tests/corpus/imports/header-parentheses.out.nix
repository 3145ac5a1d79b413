({ ... }: ((with builtins; ({
  imports = [ ./a.nix (if builtins.pathExists ./nixprov/default.nix then ./nixprov/default.nix else { }) /* nixprov */ ];
}))))
