{ ... }:
{
  imports = [];
  a = 1;
}
