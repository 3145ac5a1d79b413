{ ... }:
{
  imports = [
    (if builtins.pathExists ./nixprov then ./nixprov/default.nix else { })
  ];
}
