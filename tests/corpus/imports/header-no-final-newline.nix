{ ... }:
{
  imports = [
    ./a.nix
  ];
}