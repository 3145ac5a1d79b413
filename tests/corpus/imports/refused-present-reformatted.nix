{ ... }:
{
  imports = [
    (
      if builtins.pathExists ./nixprov/default.nix
      then ./nixprov/default.nix # ours
      else {}
    )
  ];
}
