{ ... }:
{
  imports = [ (if builtins.pathExists ./nixprov/default.nix then ./nixprov/default.nix else { }) ./a.nix (if builtins.pathExists ./nixprov/default.nix then ./nixprov/default.nix else { }) ];
}
