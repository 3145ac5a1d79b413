{ ... }:
{
  imports = [ ];
  a = 1;
}
