{ ... }:
{
  imports = [  ./a.nix  ];
}
