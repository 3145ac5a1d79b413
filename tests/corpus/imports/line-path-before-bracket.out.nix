{ ... }:
{
  imports = [ ./a.nix ./b (if builtins.pathExists ./nixprov/default.nix then ./nixprov/default.nix else { }) /* nixprov */];
}
