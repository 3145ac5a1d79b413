{ ... }:
{
  environment.etc."x".source = ./nixprov/module.nix;
}
