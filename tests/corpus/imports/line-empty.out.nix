{ ... }:
{
  imports = [ (if builtins.pathExists ./nixprov/default.nix then ./nixprov/default.nix else { }) /* nixprov */ ];
  a = 1;
}
