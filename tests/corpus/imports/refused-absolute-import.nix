{ ... }:
{
  imports = [ /etc/nixos/nixprov ];
}
