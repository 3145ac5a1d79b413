{ ... }:
{
  imports = [ ./a.nix ./b.nix /* both */ (if builtins.pathExists ./nixprov/default.nix then ./nixprov/default.nix else { }) /* nixprov */ ]; # keep
}
